"""The generator of wrong and right answers, and how well the ECG grader tells them apart."""

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import ecg_adversary, ecg_variants
from benchmarks.ecg_adversary import grade_variants, make_variants, read_questions, sample, share, shortfalls, table
from benchmarks.ecg_variants import RIGHT, WRONG, Asked, Variant, key_end, times, variants
from data_prep.common.errors import InputError
from data_prep.make_demo_ecg import make_ecg

pytestmark = pytest.mark.usefixtures("one_thread")

NOT_IN_THE_DEMO = {"sentence order", "bullets", "numbered lines"}  # its answers are single sentences without lists
NOT_IN_REAL_QUESTIONS = {"artery"}  # arteries stand in clauses that give a reason, after the key fact
# Shares of variants that are scored well: wrong ones under 0.3, right ones over 0.6.
DEMO_WRONG = 0.95
DEMO_RIGHT = 0.98
REAL_WRONG = 0.97
REAL_RIGHT = 0.96
OF_A_KIND = 25  # variants that are graded
LONGEST_CHANGE = 12  # words, on either side


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ecg") / "demo"
    make_ecg(folder, questions=600)
    return folder


@pytest.fixture(scope="module")
def demo(demo_folder) -> list[Asked]:
    return read_questions(demo_folder)


@pytest.fixture(scope="module")
def demo_variants(demo) -> list[Variant]:
    return make_variants(demo)


@pytest.fixture(scope="module")
def real_variants(shared_data) -> list[Variant]:
    folder = shared_data / "ecg_expert_qa"
    if not folder.is_dir():
        pytest.skip(f"no ECG-Expert-QA in {shared_data}")
    return make_variants(read_questions(folder))


def made(kind: str, question: str, reference: str) -> list[str]:
    """All that the rule of ``kind`` makes."""
    return list({**WRONG, **RIGHT}[kind](Asked(question, reference)))


# Single rules


@pytest.mark.parametrize(
    "kind, question, reference, expected",
    [
        ("side", "What delays the R wave in V1?", "A right bundle branch block.", "A left bundle branch block."),
        ("side", "What is this?", "It is LBBB.", "It is RBBB."),
        (
            "side",
            "What is this?",
            "It is left atrial enlargement (LAE).",
            "It is right atrial enlargement (RAE).",
        ),
        (
            "artery",
            "What feeds the septum?",
            "The left anterior descending artery.",
            "The right coronary artery.",
        ),
        ("wall", "What is this?", "It is an inferior infarction.", "It is a lateral infarction."),
        ("wall", "Which leads?", "Changes of the inferior wall.", "Changes of the lateral wall."),
        ("lead", "Where is the P wave upright?", "It is upright in lead II.", "It is upright in lead aVR."),
        ("lead", "Where is it?", "In leads V1-V3.", "In leads II, III, and aVF."),
        ("drug", "What slows the node?", "It is adenosine.", "It is amiodarone."),
        ("unit", "What is the limit?", "It is 120 ms.", "It is 120 s."),
        ("unit", "Which dose?", "Give 300 mg.", "Give 300 mcg."),
        ("number", "What is the limit?", "It is 120 ms.", "It is 1200 ms."),
        ("number", "What is the range?", "It is 60 to 100 bpm.", "It is 600 to 1000 bpm."),
        ("number", "What is the angle?", "It is -30 degrees.", "It is -60 degrees."),
        ("direction", "What happens to the QT?", "The QT is prolonged.", "The QT is shortened."),
        ("direction", "What is seen?", "ST elevation is seen.", "ST depression is seen."),
        ("direction", "What is seen?", "A rate above 100 bpm.", "A rate below 100 bpm."),
        ("degree", "Which block is it?", "A third-degree AV block.", "A first-degree AV block."),
        ("degree", "Which block is it?", "Mobitz type II block.", "Mobitz type I block."),
        ("negation", "What is it?", "The rhythm is regular.", "The rhythm is not regular."),
        ("negation", "What is it?", "Fibrillation shows no P waves.", "Fibrillation shows P waves."),
        ("negation", "Why is it?", "Causes of block include fever.", "Causes of block do not include fever."),
        ("negation", "May I drive?", "Patients cannot drive.", "Patients can drive."),
        (
            "negation",
            "What does it do?",
            "Digoxin slows the node and suggests AF.",
            "Digoxin slows the node and does not suggest AF.",
        ),
        ("verdict", "Is it long?", "Yes, it is long.", "No, it is long."),
        ("verdict and clause", "Is it long?", "Yes, it is long.", "No, it is not long."),
        ("verdict and clause", "Can I go?", "No, you cannot go.", "Yes, you can go."),
        (
            "clause order",
            "Why?",
            "The P wave is broad because the atrium is large.",
            "Because the atrium is large, the P wave is broad.",
        ),
        ("clause order", "When?", "In hyperkalemia, the T wave is tall.", "The T wave is tall in hyperkalemia."),
        (
            "sentence order",
            "What is seen?",
            "Tall T waves are seen. Calcium is given.",
            "Calcium is given. Tall T waves are seen.",
        ),
        (
            "passive",
            "What does it cause?",
            "Hypocalcemia causes a long QT interval.",
            "A long QT interval is caused by hypocalcemia.",
        ),
        ("passive", "What does it cause?", "Digoxin can cause nausea.", "Nausea can be caused by digoxin."),
        (
            "bullets",
            "What causes it?",
            "Causes include stress, fever, and pain.",
            "Causes include:\n- stress\n- fever\n- pain",
        ),
        (
            "numbered lines",
            "What causes it?",
            "Causes include stress, fever and pain.",
            "Causes include:\n1. stress\n2. fever\n3. pain",
        ),
        ("abbreviation", "What is it?", "It is LBBB.", "It is left bundle branch block."),
        ("abbreviation", "What is it?", "It is atrial fibrillation.", "It is AF."),
        ("unit conversion", "What is the limit?", "It is 120 ms.", "It is 0.12 s."),
        ("unit conversion", "What is the range?", "It is 0.12 to 0.2 seconds.", "It is 120 to 200 ms."),
        ("unit conversion", "Which dose?", "Give 0.3 g.", "Give 300 mg."),
        ("spelling", "What is it?", "Hyperkalemia or edema.", "Hyperkalaemia or oedema."),
        ("HTML", "What is the limit?", "QRS < 120 ms", "QRS &lt; 120&nbsp;ms"),
        ("Unicode", "Where is it?", "ST-segments in V1-V3", "ST\u2011segments in V1–V3"),
        ("lead words", "Where is it?", "In leads II and III.", "In lead II and lead III."),
        ("lead words", "Where is it?", "In leads V1-V3.", "In leads V1 to V3."),
        ("first letter", "What is it?", "The rhythm.", "the rhythm."),
    ],
)
def test_what_a_rule_makes(kind, question, reference, expected):
    assert expected in made(kind, question, reference)


@pytest.mark.parametrize(
    "kind, question, reference",
    [
        ("side", "May I refuse?", "You have the right to refuse."),
        ("side", "How do they differ?", "The left ventricle is thicker than the right ventricle."),
        ("side", "What is seen in left bundle branch block?", "Left bundle branch block shows a broad QRS."),
        ("lead", "Where is it?", "It is seen in lead II rather than in lead III."),
        ("lead", "Which drug?", "A class III drug."),
        ("wall", "Which vessel?", "The left anterior descending artery."),
        ("drug", "What is given?", "Treatment is aspirin, clopidogrel, and heparin."),
        ("unit", "Which speed?", "The paper runs at 25 mm/s."),
        ("number", "What is the limit?", "It is 0.12 s (120 ms)."),
        ("number", "Is 120 ms normal?", "It is normal up to 120 ms."),
        ("number", "Which block?", "A 2:1 block."),
        ("direction", "What does QT prolongation mean?", "The QT is prolonged."),
        ("direction", "Does it matter?", "The QT is prolonged rather than shortened."),
        ("direction", "What is it?", "The QT is not prolonged."),
        ("direction", "How is care given?", "Patients need regular checks."),
        ("degree", "What differs?", "First-degree block is milder than third-degree block."),
        ("negation", "Is it long?", "Yes, it is long."),
        ("clause order", "Why?", "The QT, however, is long."),
        ("sentence order", "Why?", "The QT is long. This is dangerous."),
        ("abbreviation", "Which vessel?", "The left anterior descending (LAD) vessel."),
        ("negation", "What is used?", "While an ECG is not enough, it helps."),
        ("first letter", "What is it?", "QRS is broad."),
        ("first letter", "What is it?", "Brugada syndrome."),
    ],
)
def test_what_a_rule_leaves_alone(kind, question, reference):
    assert made(kind, question, reference) == []


@given(st.integers(1, 10_000), st.sampled_from([0.1, 0.5, 2, 10, 1000]))
def test_numbers_are_multiplied_exactly_and_written_shortly(number, factor):
    written = times(str(number), factor)
    assert float(written) == pytest.approx(number * factor)
    assert "e" not in written and not re.search(r"\.\d*0$|\.$", written)


WORDS = ["The QT", "is", "not", "prolonged", ",", ". It", "120 ms", "lead II", "leads V1-V3", "right ventricle"]
WORDS += ["because", "causes", "no", "(LBBB)", "such as", "and", "Yes,", "30 to 60 %", "<", "can", "–", "include", "."]


@settings(max_examples=300)
@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)))
def test_any_text_has_variants_that_differ_from_it(text):
    assert 0 <= key_end(text) <= len(text)
    for variant in variants(Asked("What is it?", text)):
        assert variant.text.strip() and variant.text != text


# The generator on whole sets of questions


def test_the_generator_imports_nothing_of_the_grader():
    source = Path(ecg_variants.__file__).read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(source)))
    imported = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    imported += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not [name for name in imported if name.split(".")[0] in ("reward_fns", "data_prep")]


def changed(old: str, new: str) -> tuple[str, str]:
    """What stands between the common beginning and the common end."""
    shorter = min(len(old), len(new))
    start = next((place for place in range(shorter) if old[place] != new[place]), shorter)
    end = next((back for back in range(shorter - start) if old[-1 - back] != new[-1 - back]), shorter - start)
    return old[start : len(old) - end], new[start : len(new) - end]


@pytest.mark.parametrize("source", ["demo_variants", "real_variants"])
def test_a_wrong_variant_differs_in_one_place(source, request):
    wrong = [variant for variant in request.getfixturevalue(source) if not variant.right]
    spans = [changed(variant.asked.reference, variant.text) for variant in wrong]
    assert wrong and all(0 < max(len(part.split()) for part in span) <= LONGEST_CHANGE for span in spans)


def test_right_rewrites_keep_the_numbers(demo_variants):
    def digits(text: str) -> list[str]:
        return sorted(re.findall(r"\d+", text))

    changing = {"unit conversion", "numbered lines", "lead words", "HTML"}  # "&#x27;" holds a number
    rewrites = [variant for variant in demo_variants if variant.right and variant.kind not in changing]
    assert rewrites and all(digits(variant.text) == digits(variant.asked.reference) for variant in rewrites)


def test_the_same_seed_makes_the_same_variants(demo, demo_variants):
    assert make_variants(demo[:100], seed=3) == make_variants(demo[:100], seed=3) != make_variants(demo[:100], seed=4)
    assert sample(demo_variants, 5, seed=3) == sample(demo_variants, 5, seed=3) != sample(demo_variants, 5, seed=4)
    assert {*make_variants(demo[50:100])} <= {*demo_variants}  # one question's variants depend on no other question


def test_the_demo_has_variants_of_most_kinds(demo_variants):
    assert {variant.kind for variant in demo_variants} == {*WRONG, *RIGHT} - NOT_IN_THE_DEMO


def test_real_questions_have_variants_of_most_kinds(real_variants):
    assert {variant.kind for variant in real_variants} == {*WRONG, *RIGHT} - NOT_IN_REAL_QUESTIONS


# The grader


def shares(made: list[Variant]) -> tuple[float, float]:
    """How many wrong and how many right variants are scored well; a failing test shows what is not."""
    graded = grade_variants(sample(made, OF_A_KIND))
    print("\n".join([*table(graded), *shortfalls(graded, 3)]))
    wrong, right = ([one for one in graded if one.variant.right == side] for side in (False, True))
    return share(wrong), share(right)


def test_the_grader_tells_wrong_from_right_on_the_demo(demo_variants):
    wrong, right = shares(demo_variants)
    assert wrong >= DEMO_WRONG and right >= DEMO_RIGHT


def test_the_grader_tells_wrong_from_right_on_the_real_questions(real_variants):
    wrong, right = shares(real_variants)
    assert wrong >= REAL_WRONG and right >= REAL_RIGHT


def test_the_program_prints_a_line_for_each_kind(demo_folder, capsys):
    ecg_adversary.main(["--data_dir", str(demo_folder), "--limit", "3", "--show", "1"])
    kinds = {*WRONG, *RIGHT} - NOT_IN_THE_DEMO
    printed = capsys.readouterr().out
    assert all(re.search(rf"^  {kind} +[1-3] +[\d.]+%$", printed, re.M) for kind in kinds)


def test_a_folder_without_questions_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} holds no file of ECG-Expert-QA"):
        read_questions(tmp_path)
