"""The synthetic ECG question set: what the ECG recipe relies on when it runs on the demo."""

import json
import re
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_prep import make_demo_ecg
from data_prep.common.errors import InputError
from data_prep.demo.ecg_sampler import (
    Question,
    abnormal_levels,
    dialogue,
    ecg_question,
    facts,
    finding_of,
    knowledge_questions,
    level,
    measurements,
    rights_questions,
    templates_file,
)
from data_prep.make_demo_ecg import FILES, make_ecg, question_answers

NEAR_DUPLICATE = 0.8  # similarity above which the ECG recipe keeps questions on one side of a split
KEYS = {
    "EBK": {"Q", "A"},
    "CK": {"Q", "A"},
    "CD": {"Disease", "Q", "A"},
    "PRTK": {"Question", "Answer"},
    "CMD": {
        *("Q", "A", "subject_id", "study_id", "cart_id", "ecg_time", "report_0", "report_1", "report_3"),
        *("bandwidth", "filtering", "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end"),
        *("p_axis", "qrs_axis", "t_axis"),
    },
    "MROD": {"subject_id", "result", "QA"},
}


def phrasings() -> dict[str, list[str]]:
    """All lists of phrasings by the name of their template."""
    file = templates_file()
    found = {}
    for attribute, entry in file["attributes"].items():
        found[f"{attribute} open"] = entry["questions"]
        found[f"{attribute} yes/no"] = entry["yes_no"]
    found |= {f"rights {speaker}": entry["questions"] for speaker, entry in file["rights"].items()}
    found |= {f"complex {part}": file["complex"][part] for part in ("leads", "sign")}
    found |= {f"ECG {kind}": texts for kind, texts in file["ecg_questions"].items()}
    return found | {f"turn {turn}": texts for turn, texts in file["dialogue"]["turns"].items()}


def similarity(first: str, second: str) -> float:
    """Jaccard similarity of the character 5-grams."""
    grams = [{text[i : i + 5] for i in range(len(text) - 4)} for text in (first.lower(), second.lower())]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def verdicts(answers: list[str]) -> Counter[str]:
    return Counter(answer.split(",")[0] for answer in answers if answer.startswith(("Yes,", "No,")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "ecg"
    make_demo_ecg.main(["--out_dir", str(path)])
    return path


@pytest.fixture(scope="module")
def records(folder) -> dict[str, list[dict]]:
    return {file: json.loads((folder / name).read_text()) for file, name in FILES.items()}


# Facts and templates


def test_enough_facts_and_templates():
    assert len(facts()) >= 150
    assert len(phrasings()) >= 40
    assert templates_file()["attributes"].keys() == {fact.attribute for fact in facts()}


def test_every_key_of_the_yaml_files_is_given_once():
    """YAML keeps the last of two equal keys in silence; for facts that would lose one."""

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        pairs = loader.construct_pairs(node, deep=True)
        assert len(dict(pairs)) == len(pairs), node.start_mark
        return dict(pairs)

    Strict.add_constructor("tag:yaml.org,2002:map", mapping)
    for path in Path(make_demo_ecg.__file__).parent.glob("demo/ecg_*.yaml"):
        yaml.load(path.read_text(), Strict)


def test_every_fact_has_a_wrong_value_that_is_clearly_wrong():
    """Exceptions under "close" are spelt like the entities and values that they mean."""
    for fact in facts():
        assert fact.wrong and fact.value not in fact.wrong, fact
    for entry in yaml.safe_load((Path(make_demo_ecg.__file__).parent / "demo" / "ecg_facts.yaml").read_text()).values():
        for entity, close in entry.get("close", {}).items():
            assert set(close) <= set(entry["values"].values()) - {entry["values"][entity]}


def test_phrasings_are_many_and_lexically_different():
    for name, texts in phrasings().items():
        assert len(texts) >= (4 if "yes/no" in name else 8), name
        for first, second in combinations(texts, 2):
            assert similarity(first, second) < NEAR_DUPLICATE, (first, second)


def test_values_are_drawn_clearly_inside_or_outside_the_limits():
    for name, entry in measurements().items():
        assert set(entry["draw"]) == {"normal", *entry["finding"]}
        for wanted, ends in entry["draw"].items():
            assert [level(name, value) for value in ends] == [wanted, wanted]
            assert min(abs(value - limit) for value in ends for limit in entry["limits"]) >= 4


@pytest.mark.parametrize(
    ("name", "value", "finding"),
    [
        ("rate", 45, "sinus bradycardia"),
        ("rate", 120, "sinus tachycardia"),
        ("pr", 240, "first-degree AV block"),
        ("qrs", 140, "a wide QRS complex"),
        ("qtc", 500, "a prolonged QTc"),
        ("axis", -60, "left axis deviation"),
        ("axis", 120, "right axis deviation"),
        ("pr", 160, ""),
    ],
)
def test_rules_for_measurements(name, value, finding):
    assert finding_of(name, value) == finding


# The files


def test_keys_are_those_of_ecg_expert_qa(folder, records):
    assert {path.name for path in folder.iterdir()} == {*FILES.values(), "teacher", "SYNTHETIC_ecg.txt"}
    for file, entries in records.items():
        assert all(set(entry) == KEYS[file] for entry in entries)
    for entry in records["MROD"]:
        assert 2 <= len(entry["QA"]) <= 3
        assert all(set(turn) == {"Q", "A"} for turn in entry["QA"])


def test_sizes(records):
    counts = {file: len(question_answers(file, entries)) for file, entries in records.items()}
    assert sum(counts.values()) == 5000
    assert min(counts.values()) >= 300


def test_question_and_answer_are_swapped_in_cross_modal_diagnosis(records):
    assert all(entry["Q"].endswith(".") for entry in records["CMD"])
    assert sum(entry["A"].endswith("?") for entry in records["CMD"]) > 0.5 * len(records["CMD"])


def test_subjects_are_synthetic_and_have_one_record_each(records):
    """MIMIC-IV's subject ids lie between 10,000,000 and 19,999,999."""
    subjects = [entry["subject_id"] for file in ("CMD", "MROD") for entry in records[file]]
    assert len(set(subjects)) == len(subjects)
    assert all(str(subject).startswith("90") for subject in subjects)


def test_no_question_is_asked_twice_in_the_same_context(records):
    asked = []
    for file, entries in records.items():
        if file == "MROD":
            asked += [(entry["result"], turn["Q"]) for entry in entries for turn in entry["QA"]]
        else:
            asked += [("", question) for question, _ in question_answers(file, entries)]
    assert len(set(asked)) == len(asked)


def test_answers_are_short_sentences_with_every_slot_filled(records):
    for file, entries in records.items():
        for question, answer in question_answers(file, entries):
            assert "{" not in question + answer
            assert question[0] == question[0].upper() and answer[0].isupper() and answer.endswith(".")
            assert 4 <= len(answer.split()) <= 20, answer


def test_vocabulary_is_modest(records):
    texts = [text for file, entries in records.items() for pair in question_answers(file, entries) for text in pair]
    assert len({word for text in texts for word in re.findall("[a-z]+", text.lower())}) < 1600


def test_ecg_fields_agree_with_the_question(records):
    for entry in records["CMD"]:
        assert 0 < entry["p_onset"] < entry["p_end"] < entry["qrs_onset"] < entry["qrs_end"] < entry["t_end"]
        assert entry["t_end"] - entry["p_onset"] < entry["rr_interval"]  # the next P wave follows the T wave
        if stated := re.search(r"PR interval (?:of )?(\d+) ms", entry["A"]):
            assert int(stated[1]) == entry["qrs_onset"] - entry["p_onset"]
        if stated := re.search(r"heart rate (?:of )?(\d+) beats", entry["A"]):
            assert round(60_000 / entry["rr_interval"]) == int(stated[1])


def test_every_abnormality_occurs(records):
    answers = " ".join(answer for _, answer in question_answers("CMD", records["CMD"]))
    for name, abnormal in abnormal_levels():
        assert measurements()[name]["finding"][abnormal] in answers


# Polarity and coverage


def drawn() -> list[Question]:
    """The questions of the default size with their families, which the files do not tell."""
    rng = np.random.default_rng(0)
    asked = [*knowledge_questions("EBK", 1320, rng), *knowledge_questions("CK", 1680, rng), *rights_questions(300, rng)]
    for number in range(200):
        asked += [ecg_question(kind, number % 2 == 0, number, rng)[1] for kind in ("finding", "normal")]
        asked += dialogue(number % 2 == 0, 2, number, rng)[1]
    return asked


def test_every_fact_is_asked_openly_and_with_yes_or_no():
    asked = {(question.family, question.fact) for question in drawn()}
    for fact in facts():
        assert {(f"{fact.attribute} {kind}", fact.key) for kind in ("open", "yes/no")} <= asked
    for speaker, entry in templates_file()["rights"].items():
        acts = {act for verdict in ("yes", "no") for act in entry[verdict]}
        assert {(f"rights {speaker}", (speaker, act)) for act in acts} <= asked


def test_yes_and_no_are_balanced_in_every_family():
    families = defaultdict(list)
    for question in drawn():
        families[question.family].append(question.answer)
    counts = {family: verdicts(answers) for family, answers in families.items() if verdicts(answers)}
    assert len(counts) == len(templates_file()["attributes"]) + 5  # rights of two speakers, ECGs, dialogues
    for family, count in counts.items():
        assert 0.45 <= count["Yes"] / count.total() <= 0.55, family


def test_yes_and_no_are_balanced_in_every_file(records):
    for file, entries in records.items():
        if count := verdicts([answer for _, answer in question_answers(file, entries)]):
            assert 0.45 <= count["Yes"] / count.total() <= 0.55, file


def test_no_phrasing_of_a_right_gives_the_answer_away():
    for speaker, entry in templates_file()["rights"].items():
        assert len(entry["yes"]) == len(entry["no"]), speaker


def test_the_right_value_is_in_every_answer_and_in_the_questions_to_be_answered_with_yes():
    right = {fact.key: re.compile(rf"(?<!\w){re.escape(fact.value)}(?!\w)", re.IGNORECASE) for fact in facts()}
    for question in drawn():
        if question.fact in right:
            assert right[question.fact].search(question.answer)
        if question.family.endswith("yes/no"):
            assert question.answer.startswith("Yes,") == bool(right[question.fact].search(question.text))


# Seeds and bad input


def test_same_seed_gives_the_same_bytes(folder, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        make_ecg(tmp_path / name, seed=seed)
    for name in FILES.values():
        assert (tmp_path / "same" / name).read_bytes() == (folder / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()


@pytest.mark.parametrize("questions", [100, 101, 103, 1234])
def test_other_sizes(tmp_path, questions):
    records, _ = make_ecg(tmp_path / "ecg", questions)
    assert sum(len(question_answers(file, entries)) for file, entries in records.items()) == questions
    assert all(records.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--questions", "99"], "--questions is 99; it must be at least 100"),
        (["--questions", "100000"], "--questions is 100000; the templates do not make so many"),
        (["--seed", "-1"], "--seed is -1"),
    ],
)
def test_bad_options_are_one_clear_line(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        make_demo_ecg.main(["--out_dir", str(tmp_path / "ecg"), *options])
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / FILES["EBK"]).write_text("[]")
    with pytest.raises(InputError, match="holds other files"):
        make_ecg(tmp_path)
    assert (tmp_path / FILES["EBK"]).read_text() == "[]"


def test_an_earlier_demo_is_replaced(tmp_path):
    for seed in (0, 1):
        make_ecg(tmp_path / "ecg", questions=100, seed=seed)
    assert len(list((tmp_path / "ecg").iterdir())) == len(FILES) + 2
