import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.common.errors import InputError
from recipes import compare
from recipes.evaluation.bootstrap import holm, paired_bootstrap, paired_p_value
from recipes.evaluation.comparison import Comparison, compare_pairs, left_out
from recipes.evaluation.results import read_run
from recipes.report import pairs
from recipes.report.compare_items import page_items
from recipes.report.compare_page import render_page
from reward_fns.ecg_grader.reference import make_reference

ECG = {
    **{"context": "", "finish_reason": "stop", "words": 1, "format_ok": True, "coverage": 0.5, "contradiction": 0.0},
    **{"reasons": [], "grader_failed": False, "copied": 0.0, "rouge_l": 40.0, "bleu": 0.0, "meteor": 0.0},
    **{"bert_score": None, "response_tokens": 7},
}
DRUG = "Which drug ends AVNRT?"
DRUG_ANSWER = "Adenosine ends it."
GROUND_TRUTH = make_reference(DRUG, DRUG_ANSWER)
EHRSQL = {
    **{"template": "", "gold_sql": "SELECT 1", "ground_truth": "[]", "response_tokens": 5, "finish_reason": "stop"},
    **{"score": 0.0, "executed": True, "reads_table": True, "abstained": False, "timed_out": False, "format_ok": True},
    **{"error": "", "answerable": True, "seen_template": "seen"},
}


def ecg_sample(id, correctness, answer=DRUG_ANSWER, category="EBK", **fields):
    given = {"id": id, "category": category, "question": DRUG, "reference": DRUG_ANSWER, "ground_truth": GROUND_TRUTH}
    return ECG | given | {"response": answer, "answer": answer, "correctness": correctness} | fields


def ehrsql_sample(id, acc, sql="SELECT 2", **fields):
    return EHRSQL | {"id": id, "question": f"question {id}", "acc": acc, "sql": sql, "response": f"`{sql}`"} | fields


def write(folder, samples, recipe, **config):
    folder.mkdir(parents=True)
    content = {"summary": {}, "config": {"recipe": recipe} | config, "samples": samples}
    (folder / "results.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def ecg_folders(tmp_path):
    scores = {"start": [0.0, 1.0, 0.5, 0.0], "sft": [0.5, 0.5, 0.5, 0.0], "grpo": [1.0, 0.0, 0.5, 0.0]}
    return [
        write(tmp_path / "model" / label, [ecg_sample(str(i), each) for i, each in enumerate(values)], "ecg")
        for label, values in scores.items()
    ]


@pytest.fixture
def ehrsql_folders(tmp_path):
    others = {"answerable": False, "seen_template": "unknown"}
    start = [
        ehrsql_sample("a", 0, error="no such table"),
        ehrsql_sample("b", 0, seen_template="unseen"),
        ehrsql_sample("c", 0, **others),
    ]
    grpo = [
        ehrsql_sample("a", 1),
        ehrsql_sample("b", 0, None, seen_template="unseen", abstained=True),
        ehrsql_sample("c", 0, **others),
    ]
    return [write(tmp_path / label, samples, "ehrsql") for label, samples in (("start", start), ("grpo", grpo))]


def read(folders):
    return {folder.name: read_run(folder) for folder in folders}


def test_differences_of_two_runs(ecg_folders):
    first = compare_pairs(read(ecg_folders[:2]))[0]
    assert (first.figure, first.questions, first.before, first.after) == ("correctness", 4, "start", "sft")
    assert (first.before_value, first.after_value) == (37.5, 37.5)
    assert first.difference == 0


def test_three_runs_are_compared_in_three_pairs(ecg_folders):
    pairs = [(each.before, each.after) for each in compare_pairs(read(ecg_folders)) if each.figure == "coverage"]
    assert pairs == [("start", "sft"), ("start", "grpo"), ("sft", "grpo")]


def test_figures_without_questions_are_left_out(tmp_path):
    folders = [write(tmp_path / label, [ehrsql_sample("a", 1)], "ehrsql") for label in "xy"]
    assert "unseen templates" not in {each.figure for each in compare_pairs(read(folders))}


def test_other_questions_are_refused(tmp_path, ecg_folders):
    other = write(tmp_path / "other", [ecg_sample("new", 1.0)], "ecg")
    with pytest.raises(InputError, match="other and start are not about the same questions"):
        compare_pairs(read([ecg_folders[0], other]))


def test_runs_with_other_variants_are_not_compared_by_robust_accuracy(tmp_path):
    folders = []
    for label, variants in {"all": ["v1", "v2"], "one": ["v1"]}.items():
        samples = [ehrsql_sample(id, 1, variants=dict.fromkeys(variants, True)) for id in "ab"]
        folders.append(write(tmp_path / label, samples, "ehrsql", variants=[f"/{label}/{name}" for name in variants]))
    runs = read(folders)
    assert "all answerable, robust" not in [each.figure for each in compare_pairs(runs)]
    assert left_out(runs) == ["all answerable, robust"]
    _, about, _ = compare.write_comparison({label: run.file for label, run in runs.items()}, tmp_path / "out")
    assert about.endswith("evaluated with other options: all answerable, robust")


def test_runs_with_the_same_options_in_other_folders_are_compared(tmp_path):
    folders = [
        write(tmp_path / label, [ehrsql_sample("a", 1, variants={"v1": True})], "ehrsql", variants=[f"/{label}/v1"])
        for label in ("one", "other")
    ]
    assert left_out(read(folders)) == []


def test_tokens_of_a_file_are_not_compared(tmp_path):
    of_file = {"response_tokens": 0, "finish_reason": "unknown"}
    runs = read([
        write(tmp_path / "model", [ehrsql_sample("a", 1)], "ehrsql"),
        write(tmp_path / "file", [ehrsql_sample("a", 1, **of_file)], "ehrsql"),
    ])  # fmt: skip
    assert left_out(runs) == ["response tokens"]


def test_values_of_different_questions_are_not_paired(tmp_path):
    folders = []
    for label, missing in {"one": "a", "other": "b"}.items():
        samples = [ehrsql_sample(id, 1, finish_reason="no_prediction" if id == missing else "stop") for id in "ab"]
        folders.append(write(tmp_path / label, samples, "ehrsql"))
    assert left_out(read(folders)) == ["response tokens"]


def test_small_p_values_are_bounds():
    each = Comparison("coverage", 1200, "a", "b", 40, 60, 20, 15.04, 25, 1e-4)
    row = ["coverage", "1,200", "40.0 to 60.0", "+20.0 [+15.0, +25.0]", "< 0.001"]
    assert pairs.tables([each]) == {"a to b": [pairs.HEADING, row]}


def test_the_correction_is_named():
    assert "one pair, p not corrected" in pairs.caption(2)
    assert "corrected for the 3 pairs of runs (Holm)" in pairs.caption(3)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a"], "at least two"),
        (["=x", "b"], "LABEL=PATH"),
        (["a=", "b"], "LABEL=PATH"),
        (["x/a", "y/a"], "no such .*: x/a"),
    ],
)
def test_bad_runs_are_refused(texts, message):
    with pytest.raises(InputError, match=message):
        compare.parse_runs(texts)


def test_a_label_stands_for_one_run(ecg_folders):
    with pytest.raises(InputError, match="two runs are called a; name them with LABEL=PATH"):
        compare.parse_runs([f"a={folder}" for folder in ecg_folders])


def test_labels_are_given_or_the_folders_names(ecg_folders):
    runs = compare.parse_runs([str(ecg_folders[0]), f"after={ecg_folders[1]}"])
    assert list(runs) == ["model/start", "after"]


def test_paths_may_hold_an_equals_sign(tmp_path):
    folder = write(tmp_path / "lr=1", [], "ecg")
    assert list(compare.parse_runs([str(folder), f"x={folder}"])) == [f"{tmp_path.name}/lr=1", "x"]


def test_a_clear_difference_is_significant():
    assert paired_p_value([0] * 50, [1] * 40 + [0] * 10) == pytest.approx(1 / 10_001)


def test_no_difference_is_not_significant():
    assert paired_p_value([0, 1, 1], [0, 1, 1]) == 1


def test_p_agrees_with_the_interval():
    before, after = [0] * 100, [1] * 12 + [-1] * 4 + [0] * 84
    _, low, _ = paired_bootstrap(before, after)
    assert low > 0 and 0.03 < paired_p_value(before, after) < 0.08  # 0.041 by the normal distribution, which ties raise


values = st.lists(st.floats(-100, 100), min_size=1, max_size=12)


@given(values)
def test_p_does_not_depend_on_the_direction(before):
    after = [value / 2 for value in before]
    assert paired_p_value(before, after) == paired_p_value(after, before)


probabilities = st.lists(st.floats(0, 1), max_size=8)


@given(probabilities)
def test_holm_lies_between_no_correction_and_bonferroni(p_values):
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1, len(p_values) * p)


@given(probabilities)
def test_holm_keeps_the_order(p_values):
    pairs = sorted(zip(p_values, holm(p_values), strict=True))
    assert [adjusted for _, adjusted in pairs] == sorted(adjusted for _, adjusted in pairs)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_winner_and_change(ecg_folders):
    items = page_items(read(ecg_folders))
    assert [(item["winner"], item["change"]) for item in items] == [(2, 100), (0, -100), (-1, 0), (-1, 0)]


def test_facts_of_an_answer(tmp_path):
    samples = {"x": ecg_sample("a", 1.0), "y": ecg_sample("a", 0.0, "Amiodarone ends it.")}
    folders = [write(tmp_path / label, [each], "ecg") for label, each in samples.items()]
    [item] = page_items(read(folders))
    states = [dict(answer["facts"])["drug: adenosine"] for answer in item["answers"]]
    assert states == ["covered", "contradicted"]


def test_ecg_items_hold_context_and_reference(tmp_path):
    folders = [write(tmp_path / label, [ecg_sample("a", 1.0, context="Age: 61")], "ecg") for label in "xy"]
    [item] = page_items(read(folders))
    assert [(each["label"], each["text"]) for each in item["texts"]] == [
        ("context", "Age: 61"),
        ("reference", DRUG_ANSWER),
    ]


def test_an_unreadable_reference_is_refused(tmp_path):
    folders = [write(tmp_path / label, [ecg_sample("a", 1.0, ground_truth="{}")], "ecg") for label in "xy"]
    with pytest.raises(InputError, match="question a: .*evaluate again"):
        page_items(read(folders))


def test_ehrsql_categories(ehrsql_folders):
    items = page_items(read(ehrsql_folders))
    assert [item["category"] for item in items] == ["template seen", "template unseen", "unanswerable"]


def test_ehrsql_items_hold_sql_gold_error_and_outcome(ehrsql_folders):
    item = page_items(read(ehrsql_folders))[0]
    assert item["texts"] == [
        {"label": "gold SQL", "text": "SELECT 1", "code": True},
        {"label": "gold answer, rows: 0", "text": "", "code": True},
    ]
    start, grpo = item["answers"]
    assert start["texts"][0] == {"label": "SQL", "text": "SELECT 2", "code": True, "edits": [(7, 8, "1")]}
    assert start["problems"] == ["error: no such table"]
    assert (start["verdict"], grpo["verdict"]) == ("bad", "good")
    assert (start["outcome"], grpo["outcome"]) == ("wrong", "right")


def ehrsql_item(tmp_path, acc=0, **fields):
    write(tmp_path / "run", [ehrsql_sample("a", acc, **fields)], "ehrsql")
    [item] = page_items({"x": read_run(tmp_path / "run")})
    return item


def test_ehrsql_items_hold_the_first_rows_of_both_answers(tmp_path):
    gold, answer = [[str(number), "x" * 300] for number in range(100)], [["1.0"], ["None"]]
    item = ehrsql_item(tmp_path, ground_truth=json.dumps(gold), answer=json.dumps(answer), rows=2)
    assert item["texts"][1]["label"] == "gold answer, first 5 of 100 or more rows"
    assert item["texts"][1]["text"].splitlines()[4] == f"4 | {'x' * 196} ..."
    assert {"label": "answer, rows: 2", "text": "1.0\nNone", "code": True} in item["answers"][0]["texts"]


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"acc": 1}, "right"),
        ({"acc": 1, "variants": {"a": True, "b": False}}, "right by luck"),
        ({"withheld": True}, "wrong but withheld"),
        ({"acc": 1, "variants": {"a": True, "b": False}, "withheld": True}, "right by luck but withheld"),
        ({"abstained": True, "withheld": False}, "abstained wrongly"),
    ],
)
def test_ehrsql_outcomes(tmp_path, fields, outcome):
    answer = ehrsql_item(tmp_path, **fields)["answers"][0]
    assert answer["outcome"] == outcome
    assert answer["note"] == f"{outcome}, 5 tokens"
    assert answer["grade"] == outcome.removesuffix(" but withheld").removesuffix(" by luck")


def test_ecg_grades_are_the_outcomes(ecg_folders):
    answers = [item["answers"][0] for item in page_items(read(ecg_folders))]
    assert [answer["grade"] for answer in answers] == ["wrong", "right", "partly right", "wrong"]
    assert all(answer["grade"] == answer["outcome"] for answer in answers)


def test_ehrsql_items_of_unknown_gold_have_no_marks(tmp_path):
    item = ehrsql_item(tmp_path, gold_sql="")
    assert item["texts"][0]["text"] == "not known"
    assert "edits" not in item["answers"][0]["texts"][0]


def test_ehrsql_items_of_unanswerable_questions(tmp_path):
    item = ehrsql_item(tmp_path, gold_sql="null", ground_truth="null", answerable=False)
    assert [each["text"] for each in item["texts"]] == ["null", "none: the database cannot answer the question"]
    assert "edits" not in item["answers"][0]["texts"][0]


def test_an_abstention_has_no_query(ehrsql_folders):
    answer = page_items(read(ehrsql_folders))[1]["answers"][1]
    assert [each["label"] for each in answer["texts"]] == ["response"]
    assert answer["note"].startswith("abstained wrongly")


def page(text, title="title"):
    answer = {"score": 0, "verdict": "bad", "note": "", "texts": [], "facts": [], "problems": [text]}
    item = {"id": "a", "category": text, "question": text, "texts": [], "answers": [answer], "winner": 0, "change": 0}
    return render_page(title, {text: {text: text}}, {text: [["figure"], [text]]}, "caption", [item])


@given(st.text())
def test_texts_survive_embedding(text):
    embedded = re.search(r'id="data">(.*?)</script>', page(text), re.DOTALL)[1]
    assert json.loads(embedded)["items"][0]["question"] == text


HOSTILE = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!--<script>", "\u2028]]>"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_add_no_tag(text):
    assert re.findall(r"<!--|</?[a-zA-Z]+", page(text)) == re.findall(r"<!--|</?[a-zA-Z]+", page("harmless"))


def test_titles_are_escaped():
    assert f"<title>{html.escape('<b>')}</title>" in page("harmless", "<b>")


def test_the_page_names_no_other_resource():
    assert not re.search(r"https?://|src=|url\(|@import", page("harmless"))


def test_command_line(tmp_path, ecg_folders, capsys):
    compare.main([*map(str, ecg_folders), "--out_dir", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "contradiction rate" in printed and "(Holm)" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["comparison.html"]


def test_the_page_names_runs_and_what_always_abstaining_reaches(tmp_path, ehrsql_folders, capsys):
    for folder in ehrsql_folders:
        results = json.loads((folder / "results.json").read_text())
        results["config"] |= {"model_name": f"models/{folder.name}", "dataset_path": "data/test.parquet"}
        results["summary"] = {
            "selection": {"score": "logprob_min", "threshold": "-inf", "penalty": 10.0, "abstaining": 100 / 3}
        }
        (folder / "results.json").write_text(json.dumps(results))
    compare.main([*map(str, ehrsql_folders), "--out_dir", str(tmp_path / "out")])
    assert "\nabstaining always: RS(10) 33.3\n" in capsys.readouterr().out
    text = (tmp_path / "out" / "comparison.html").read_text()
    assert "\nabstaining always: RS(10) 33.3</p>" in text
    for folder in ehrsql_folders:
        assert f"<dt>model</dt><dd>models/{folder.name}</dd>" in text
        assert f"<dt>results</dt><dd>{folder}/results.json</dd>" in text
    assert "<dd>no answer is withheld, chosen by RS(10)</dd>" in text


def test_a_bad_seed_is_refused(tmp_path, ecg_folders):
    with pytest.raises(InputError, match="--seed is -1"):
        compare.main([*map(str, ecg_folders), "--out_dir", str(tmp_path / "out"), "--seed", "-1"])


def test_help_says_that_the_page_holds_data(capsys):
    with pytest.raises(SystemExit):
        compare.main(["--help"])
    assert "treat it like the data" in capsys.readouterr().out
