"""What the ECG grader takes for denied, and for left open: single sentences, and 240 labelled ones."""

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.negation import grader, read_rows
from reward_fns.ecg import compute_score
from reward_fns.ecg_grader.clauses import END, with_clause_ends
from reward_fns.ecg_grader.facts import Term
from reward_fns.ecg_grader.reading import read
from reward_fns.ecg_grader.reference import make_reference

# Sentences with the state of each term, labelled by hand. The rules were chosen on the first 120; the others were
# written and labelled by somebody who did not know the rules, and were not looked at when the rules were made.
CASES = json.loads(Path(__file__).with_name("negation_cases.json").read_text(encoding="utf-8"))
LEAST = {"chosen on": 0.94, "held out": 0.84}


def states(text: str, target: str) -> set[str]:
    """The states that ``text`` gives to the terms that ``target`` names."""
    names = {fact.name for fact in read(target).facts if isinstance(fact, Term)}
    return {fact.state for fact in read(text).facts if isinstance(fact, Term) and fact.name in names}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No U waves, flat T waves.", {"u wave": "denied", "t wave": "affirmed"}),
        ("No U waves - flat T waves.", {"u wave": "denied", "t wave": "affirmed"}),
        (
            "There is no sinus rhythm, hence it is atrial flutter.",
            {"sinus rhythm": "denied", "atrial flutter": "affirmed"},
        ),
        ("Not asystole, ventricular fibrillation.", {"asystole": "denied", "ventricular fibrillation": "affirmed"}),
        ("No U waves, Q waves or delta waves.", {"u wave": "denied", "q wave": "denied", "preexcitation": "denied"}),
        ("No U waves and the T waves are flat.", {"u wave": "denied", "t wave": "affirmed"}),
        ("Q waves and U waves are absent and the T waves are tall.", {"q wave": "denied", "t wave": "affirmed"}),
        ("Lack of P waves points to atrial fibrillation.", {"p wave": "denied", "atrial fibrillation": "affirmed"}),
        ("Pericarditis could not be ruled out.", {"pericarditis": "possible"}),
        ("The scan does not exclude a pulmonary embolism.", {"pulmonary embolism": "possible"}),
        (
            "Suspected pericarditis with sinus tachycardia.",
            {"pericarditis": "possible", "sinus tachycardia": "affirmed"},
        ),
        ("Pericarditis has been ruled out.", {"pericarditis": "denied"}),
        ("Do not withhold adenosine.", {"adenosine": "affirmed"}),
        ("There is no reason to stop warfarin.", {"warfarin": "affirmed"}),
        ("Digoxin is not contraindicated.", {"digoxin": "affirmed"}),
        ("Nothing but hypokalemia explains it.", {"hypokalemia": "affirmed"}),
        ("Avoid verapamil in ventricular tachycardia.", {"verapamil": "denied", "ventricular tachycardia": "affirmed"}),
        ("Give sotalol, not flecainide.", {"sotalol": "affirmed", "flecainide": "denied"}),
        ("P waves: none. Rhythm: atrial fibrillation.", {"p wave": "denied", "atrial fibrillation": "affirmed"}),
        ("Digoxin is usually not given for asystole.", {"digoxin": "denied"}),
        ("These beats lack the P wave of sinus rhythm.", {"p wave": "denied"}),
        ("Hardly any P wave is visible.", {"p wave": "denied"}),
        ("It is wrong to give digoxin.", {"digoxin": "denied"}),
        ("It is not wrong to give digoxin.", {"digoxin": "affirmed"}),
        ("The atrial flutter has not changed.", {"atrial flutter": "affirmed"}),
        ("Pericarditis had not resolved.", {"pericarditis": "affirmed"}),
        ("Low voltage may indicate pericardial effusion.", {"pericardial effusion": "possible"}),
        (
            "Syncope could be due to sinus arrest, and a pacemaker helps.",
            {"sinus arrest": "possible", "pacemaker": "affirmed"},
        ),
        ("You may be given amiodarone.", {"amiodarone": "affirmed"}),
        ("This is probably atrial flutter.", {"atrial flutter": "possible"}),
    ],
)
def test_states(text, expected):
    assert {target: states(text, target) for target in expected} == {term: {state} for term, state in expected.items()}


@pytest.mark.parametrize("name", LEAST)
def test_labelled_sentences(name):
    found: Counter[bool] = Counter()
    for case in CASES:
        if case["set"] == name:
            found.update(states(case["text"], target) == {state} for target, state in case["states"].items())
    assert found.total() > 300
    assert found[True] / found.total() >= LEAST[name]


def test_marked_findings():
    """The benchmark's own sentences, of the half that chose no rule."""
    state, rows = grader(), read_rows("test", data_dir=None)
    assert len(rows) == 60
    assert sum(state(row) == row.state for row in rows) >= 48


@pytest.mark.parametrize(
    "answer", ["Never omit aspirin.", "Do not withhold aspirin.", "Aspirin should not be discontinued."]
)
def test_two_denials_say_what_to_do(answer):
    reference = make_reference("What about aspirin after stenting?", "Aspirin must not be stopped.")
    assert compute_score("ecg", answer, reference)["score"] > 0.6


@pytest.mark.parametrize("answer", ["Omit aspirin.", "Do not continue aspirin.", "Aspirin should be discontinued."])
def test_one_denial_says_the_opposite(answer):
    reference = make_reference("What about aspirin after stenting?", "Aspirin must not be stopped.")
    assert compute_score("ecg", answer, reference)["score"] < 0.1


@pytest.mark.parametrize(
    "reference", ["Digoxin is not contraindicated.", "No contraindication to digoxin exists.", "Do not avoid digoxin."]
)
def test_what_is_not_contraindicated_may_be_given(reference):
    reference = make_reference("May digoxin be given in this case?", reference)
    for answer in ("Digoxin may be given.", "Digoxin is not contraindicated.", "Digoxin should not be avoided."):
        assert compute_score("ecg", answer, reference)["score"] > 0.6, answer
    for answer in ("Digoxin is contraindicated.", "Digoxin must not be given.", "Avoid digoxin."):
        assert compute_score("ecg", answer, reference)["score"] < 0.1, answer


def test_a_decimal_point_and_a_comma_in_a_list_end_no_clause():
    assert END not in with_clause_ends("The ST segment is not elevated by 0.5 mm")
    assert END not in with_clause_ends("without U waves, Q waves, or J waves")
