import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from matplotlib import image
from numpy import diff, median, split

from data_prep.common.errors import InputError
from recipes import summary
from recipes.evaluation.comparison import compare_with_first
from recipes.evaluation.results import Run, read_run, results_file
from recipes.report.curves import TRAINING, read_curves
from recipes.report.run_facts import abstaining_always
from recipes.report.summary import cells, rows
from recipes.report.summary_kinds import kinds_markdown
from recipes.tasks.ehrsql.figures import Sample
from recipes.tasks.ehrsql.misreadings import MISREADING_KINDS
from reward_fns.ecg_grader.reference import make_reference
from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED

VALIDATION = "val-core/ehrsql/acc/mean@1"


def sample(id: str, acc: float, seen: str = "seen", **fields) -> Sample:
    given = {
        "id": id,
        "question": f"question {id}",
        "template": "",
        "seen_template": seen,
        "answerable": True,
        "gold_sql": "",
        "ground_truth": '[["1.0"]]',
        "response": "",
        "response_tokens": 1,
        "finish_reason": "stop",
        "sql": None,
        "score": acc,
        "acc": acc,
        "executed": True,
        "reads_table": True,
        "abstained": False,
        "timed_out": False,
        "format_ok": True,
        "error": "",
    }
    return Sample(**given | fields)


def unanswerable(id: str, abstained: bool) -> Sample:
    fields = {"answerable": False, "ground_truth": ABSTAIN, "abstained": abstained}
    return sample(id, float(abstained), "unknown", **fields)


START = [sample("a", 1), sample("b", 0), sample("c", 0), sample("d", 0, "unseen"), unanswerable("e", False)]
AFTER = [sample("a", 1), sample("b", 1), sample("c", 1), sample("d", 0, "unseen"), unanswerable("e", True)]


def run(samples: list) -> Run:
    return Run(Path("results.json"), "ehrsql", samples)


def write_run(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"summary": {}, "config": {}, "samples": [asdict(s) for s in samples]}))
    return path


def write_metrics(path, records):
    path.write_text("".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in records))
    return path


@pytest.fixture
def metrics(tmp_path):
    first = [(0, {VALIDATION: 0.25}), (1, {TRAINING: 0.3}), (2, {VALIDATION: 0.9})]
    return write_metrics(tmp_path / "grpo.jsonl", first)


def test_differences_by_hand():
    comparison = compare_with_first({"start": run(START), "grpo": run(AFTER)})
    start, grpo = comparison["start"], comparison["grpo"]
    assert start["seen templates"] == {"questions": 3, "value": pytest.approx(100 / 3)}
    assert grpo["seen templates"]["value"] == pytest.approx(100)
    assert grpo["seen templates"]["difference"] == pytest.approx(200 / 3)
    assert (grpo["seen templates"]["low"], grpo["seen templates"]["high"]) == (0, 100)  # three questions tell little
    unseen = {"questions": 1, "value": 0, "difference": 0, "low": 0, "high": 0}
    assert grpo["unseen templates"] == unseen
    assert grpo["all answerable"]["difference"] == pytest.approx(50)
    assert [start["RS(0)"]["value"], grpo["RS(0)"]["value"]] == pytest.approx([20, 80])
    # start: 1 right and 4 wrong answers; after: 4 right ones, of which one abstention, and 1 wrong.
    assert [start["RS(10)"]["value"], grpo["RS(10)"]["value"]] == pytest.approx([100 * -39 / 5, 100 * -6 / 5])
    assert grpo["RS(10)"]["difference"] == pytest.approx(100 * 33 / 5)
    longer = run([replace(sample, response_tokens=11) for sample in AFTER])
    lengths = compare_with_first({"start": run(START), "grpo": longer})["grpo"]["response tokens"]
    assert (lengths["value"], lengths["difference"]) == (11, 10)


def test_each_run_but_the_first_has_a_column_of_differences():
    table = rows(compare_with_first({"start": run(START), "sft": run(START), "grpo": run(AFTER)}))
    assert table[0] == ["", "questions", "start", "sft", "difference to start", "grpo", "difference to start"]
    assert table[1] == ["seen templates", "3", "33.3", "33.3", "+0.0 [+0.0, +0.0]", "100.0", "+66.7 [+0.0, +100.0]"]


def test_figures_of_no_question_are_none():
    only_seen = [sample("a", 1)]
    comparison = compare_with_first({"start": run(only_seen), "grpo": run(only_seen)})
    empty = {"questions": 0, "value": None, "difference": None, "low": None, "high": None}
    assert comparison["grpo"]["unseen templates"] == empty
    assert cells(comparison["grpo"]["unseen templates"]) == ("", "")


@pytest.mark.parametrize(
    "other",
    [
        AFTER[1:],
        [*AFTER, sample("f", 1)],
        [sample("z", 1), *AFTER[1:]],
        [sample("a", 1, ground_truth='[["2.0"]]'), *AFTER[1:]],
    ],
)
def test_runs_on_other_questions_are_refused(other):
    with pytest.raises(InputError, match="grpo and start are not about the same questions"):
        compare_with_first({"start": run(START), "grpo": run(other)})


def test_the_newest_results_of_a_folder_are_taken(tmp_path):
    old = write_run(tmp_path / "model" / "run_2" / "results.json", START)
    new = write_run(tmp_path / "model" / "run_1" / "results.json", AFTER)
    os.utime(old, (1, 1))
    assert results_file(tmp_path) == results_file(new) == new
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no results\.json"):
        results_file(tmp_path / "empty")


def test_samples_are_sorted(tmp_path):
    assert read_run(write_run(tmp_path / "results.json", START[::-1])).samples == START


def test_failed_gold_is_left_out(tmp_path):
    failed = sample("x", 0, ground_truth=GOLD_FAILED)
    assert read_run(write_run(tmp_path / "results.json", [*START, failed])).samples == START
    with pytest.raises(InputError, match="no graded samples"):
        read_run(write_run(tmp_path / "results.json", [failed]))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"samples": [{"id": "a"}]}', '{"samples": 3}'])
def test_bad_results_are_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=r"is no results\.json of evaluate"):
        read_run(tmp_path / "results.json")


def test_missing_results_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_run(tmp_path / "results.json")


def test_a_resumed_run_replaces_steps(tmp_path, metrics):
    later = [(2, {VALIDATION: 0.5, TRAINING: None}), (3, {TRAINING: 0.4})]
    resumed = write_metrics(tmp_path / "resumed.jsonl", later)
    curves = read_curves([metrics, resumed], VALIDATION)
    assert curves == {VALIDATION: {0: 0.25, 2: 0.5}, TRAINING: {1: 0.3, 3: 0.4}}
    assert read_curves([tmp_path], VALIDATION) == curves  # in the order of the names: grpo, resumed
    assert read_curves([resumed, metrics], VALIDATION)[VALIDATION] == {0: 0.25, 2: 0.9}


def test_nan_is_null_in_verls_file(tmp_path):
    path = tmp_path / "grpo.jsonl"
    path.write_bytes(
        b'{"step":0,"data":{"val-core/ehrsql/acc/mean@1":0.25,"val-aux/num_turns/mean":2.0}}\n'
        b'{"step":1,"data":{"critic/score/mean":null,"timing_s/step":3.5}}\n'
    )
    assert read_curves([path], VALIDATION) == {VALIDATION: {0: 0.25}, TRAINING: {}}


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"step": 1}', '{"step": 1, "data": null}', '{"data": {}}'])
def test_bad_metrics_name_the_line(tmp_path, metrics, line):
    with metrics.open("a") as file:
        print(line, file=file)
    with pytest.raises(InputError, match=r"grpo\.jsonl, line 4"):
        read_curves([metrics], VALIDATION)


def test_metrics_without_validation_are_refused(tmp_path):
    path = write_metrics(tmp_path / "grpo.jsonl", [(1, {TRAINING: 0.3})])
    with pytest.raises(InputError, match="trainer.test_freq"):
        read_curves([path], VALIDATION)
    with pytest.raises(InputError, match="no such file"):
        read_curves([tmp_path / "absent.jsonl"], VALIDATION)


def test_command_line(tmp_path, metrics, capsys):
    start, grpo = (write_run(tmp_path / n / "results.json", s) for n, s in (("start", START), ("grpo", AFTER)))
    out = tmp_path / "out"
    runs = [f"start={start}", f"grpo={grpo.parent}"]
    summary.main(["--runs", *runs, "--metrics", str(metrics), "--out_dir", str(out)])

    assert not (out / "misreadings.png").exists()
    assert f"Wrote {out}/summary.html" in capsys.readouterr().out
    written = json.loads((out / "summary.json").read_text())
    assert written["runs"]["grpo"]["seen templates"]["difference"] == pytest.approx(200 / 3)
    assert written["files"] == {"start": str(start), "grpo": str(grpo)}
    assert written["curves"][VALIDATION] == {"0": 0.25, "2": 0.9}
    text = (out / "summary.md").read_text()
    assert "| | questions | start | grpo | difference to start |\n| --- | ---: | ---: | ---: | ---: |\n" in text
    assert "| seen templates | 3 | 33.3 | 100.0 | +66.7 [+0.0, +100.0] |" in text
    assert "25.0 % at step 0 and 90.0 % at step 2" in text

    pixels = image.imread(out / "validation_accuracy.png")
    assert pixels.shape[:2] == (600, 1050)
    blue = (pixels[..., 2] > 0.6) & (pixels[..., 0] < 0.3)  # the line of the validation accuracy
    rows = blue.any(axis=1).nonzero()[0]
    assert rows.max() - rows.min() > 300  # it rises from 25 to 90 % over most of the height
    assert not [path for path in out.iterdir() if "partial" in path.name]


SELECTION = {"score": "logprob_min", "threshold": -0.0338, "penalty": 5.0, "abstaining": 20.0}


def test_the_summary_says_what_was_evaluated(tmp_path, metrics, capsys):
    start = write_run(tmp_path / "start" / "results.json", START)
    grpo = write_run(tmp_path / "grpo" / "results.json", AFTER)
    results = json.loads(grpo.read_text())
    variants = ["data/ehr.variant1.sqlite", "data/ehr.variant2.sqlite"]
    results["config"] = {"model_name": "models/grpo", "dataset_path": "data/test.parquet", "variants": variants}
    grpo.write_text(json.dumps(results | {"summary": {"selection": SELECTION}}))
    out = tmp_path / "out"
    summary.main(["--runs", f"start={start}", f"grpo={grpo}", "--metrics", str(metrics), "--out_dir", str(out)])
    selection = "answers are withheld where logprob_min is below -0.0338, chosen by RS(5)"
    lines = (out / "summary.md").read_text().splitlines()
    place = lines.index("## Runs")
    assert lines[place + 2 : place + 12] == [
        *("- start", f"  - results: {start}", "  - questions: 5"),
        *("- grpo", "  - model: models/grpo", "  - data set: data/test.parquet", f"  - results: {grpo}"),
        *("  - questions: 5", "  - variants: ehr.variant1.sqlite, ehr.variant2.sqlite", f"  - selection: {selection}"),
    ]
    assert "Abstaining always: RS(10) 20.0." in lines
    assert "abstaining always: RS(10) 20.0" in capsys.readouterr().out
    page = (out / "summary.html").read_text()
    assert "<dd>models/grpo</dd>" in page and f"<dd>{selection}</dd>" in page
    assert "abstaining always: RS(10) 20.0</div>" in page


def test_runs_without_selection_have_no_baseline():
    assert abstaining_always({"start": run(START), "grpo": run(AFTER)}) == []


MISREAD = {  # label -> for each sample the misreadings that apply, with whether one gives the answer
    "start": [{}, {"last is first": True}, {"last is first": True, "rank below k": True}, {"last is first": False}, {}],
    "grpo": [{}, {"last is first": False}, {"last is first": False, "rank below k": True}, {"last is first": True}, {}],
}


def misread_runs(tmp_path):
    runs = []
    for label, samples in {"start": START, "grpo": AFTER}.items():
        found = [replace(s, misreadings=given) for s, given in zip(samples, MISREAD[label], strict=True)]
        runs.append(f"{label}={write_run(tmp_path / label / 'results.json', found)}")
    return runs


def test_misreadings_in_table_and_chart(tmp_path, metrics, capsys):
    out = tmp_path / "out"
    summary.main(["--runs", *misread_runs(tmp_path), "--metrics", str(metrics), "--out_dir", str(out)])
    assert json.loads((out / "summary.json").read_text())["misreadings"] == {
        "start": {"last is first": {"changes": 3, "wrong": 2}, "rank below k": {"changes": 1, "wrong": 1}},
        "grpo": {"last is first": {"changes": 3, "wrong": 1}, "rank below k": {"changes": 1, "wrong": 1}},
    }
    text = (out / "summary.md").read_text()
    assert "| last is first | 66.7 (2 of 3) | 33.3 (1 of 3) |" in text
    assert "(misreadings.png)" in text
    assert "last is first" in capsys.readouterr().out

    pixels = image.imread(out / "misreadings.png")
    blue = (pixels[..., 2] > 0.6) & (pixels[..., 0] < 0.3)  # start's bars: 66.7 and 100 %
    orange = (pixels[..., 0] > 0.9) & (pixels[..., 2] < 0.3)  # grpo's bars: 33.3 and 100 %
    shortest = bar_lengths(orange)[0]
    assert bar_lengths(orange) == pytest.approx([shortest, 3 * shortest], rel=0.05)
    assert bar_lengths(blue) == pytest.approx([2 * shortest, 3 * shortest], rel=0.05)


def bar_lengths(pixels) -> list[float]:
    """The lengths in pixels of the bars of one colour, from the top; what is no longer than 100 is the legend."""
    lengths = pixels.sum(axis=1)
    rows = (lengths > 100).nonzero()[0]
    return [float(median(lengths[bar])) for bar in split(rows, (diff(rows) > 1).nonzero()[0] + 1)]


def test_a_run_of_an_older_evaluation_has_no_misreadings(tmp_path, metrics):
    start, grpo = misread_runs(tmp_path)
    older = json.loads((tmp_path / "start" / "results.json").read_text())
    for record in older["samples"]:
        del record["misreadings"]
    (tmp_path / "start" / "results.json").write_text(json.dumps(older))
    summary.main(["--runs", start, grpo, "--metrics", str(metrics), "--out_dir", str(tmp_path / "out")])
    assert set(json.loads((tmp_path / "out" / "summary.json").read_text())["misreadings"]) == {"grpo"}
    assert "| last is first | 33.3 (1 of 3) |" in (tmp_path / "out" / "summary.md").read_text()


def test_kinds_of_wrong_answers_in_table_and_chart(tmp_path, metrics, capsys):
    kinds = {"start": [[], ["join"], ["join", "distinct"], ["join"]], "grpo": [[], [], [], ["join"]]}
    runs = []
    for label, samples in {"start": START[:4], "grpo": AFTER[:4]}.items():
        found = [replace(s, gold_sql="SELECT 1", error_kinds=k) for s, k in zip(samples, kinds[label], strict=True)]
        runs.append(f"{label}={write_run(tmp_path / label / 'results.json', found)}")
    out = tmp_path / "out"
    summary.main(["--runs", *runs, "--metrics", str(metrics), "--out_dir", str(out)])
    text = (out / "summary.md").read_text()
    assert "| join | 75.0 (3 of 4) | 25.0 (1 of 4) |" in text
    assert "| distinct | 25.0 (1 of 4) |  |" in text
    assert "(error_kinds.png)" in text
    assert "distinct" in capsys.readouterr().out
    pixels = image.imread(out / "error_kinds.png")
    blue = (pixels[..., 2] > 0.6) & (pixels[..., 0] < 0.3)
    longest, shortest = bar_lengths(blue)
    assert longest == pytest.approx(3 * shortest, rel=0.05)


def test_a_misreading_that_one_run_does_not_know_is_blank_there():
    counts = {
        "a": {"x": {"changes": 2, "wrong": 1}},
        "b": {"x": {"changes": 4, "wrong": 0}, "y": {"changes": 3, "wrong": 3}},
    }
    lines = list(kinds_markdown(MISREADING_KINDS, counts, "chart.png"))
    assert lines[-5:-2] == [
        "| --- | ---: | ---: |",
        "| x | 50.0 (1 of 2) | 0.0 (0 of 4) |",
        "| y |  | 100.0 (3 of 3) |",
    ]


@pytest.mark.parametrize(
    ("runs", "message"), [(["start"], "LABEL=PATH"), (["=x"], "LABEL=PATH"), (["a=x", "a=y"], "twice")]
)
def test_bad_runs_are_refused(tmp_path, metrics, runs, message):
    with pytest.raises(InputError, match=message):
        summary.main(["--runs", *runs, "--metrics", str(metrics), "--out_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_bad_input_prints_no_table(tmp_path, metrics, capsys):
    start = write_run(tmp_path / "start" / "results.json", START)
    out = tmp_path / "out"
    for bad, place in ((tmp_path / "absent.jsonl", out), (metrics, start / "out")):
        with pytest.raises(InputError):
            summary.main(["--runs", f"start={start}", "--metrics", str(bad), "--out_dir", str(place)])
    assert capsys.readouterr().out == ""
    assert not out.exists()


ECG = {
    **{"category": "EBK", "question": "Is it so?", "context": "", "reference": "Yes."},
    "ground_truth": make_reference("Is it so?", "Yes."),
    **{"response": "Yes.", "finish_reason": "stop", "answer": "Yes.", "words": 1, "format_ok": True},
    **{"coverage": 0.5, "contradiction": 0.0, "reasons": [], "grader_failed": False, "copied": 0.0},
    **{"rouge_l": 40.0, "bleu": 0.0, "meteor": 0.0, "bert_score": None},
}
ECG_METRICS = [
    (0, {"val-core/ecg/EBK/acc/mean@1": 0.2, "val-core/ecg/CDQA/acc/mean@1": 0.4, "val-aux/ecg/EBK/score/mean@1": 1}),
    (5, {"val-core/ecg/EBK/acc/mean@1": 0.5, "val-core/ecg/CDQA/acc/mean@1": 0.6, TRAINING: 0.3}),
]


def write_ecg(path, values):
    samples = [
        ECG | {"id": str(number), "correctness": value, "response_tokens": 10 * number}
        for number, value in enumerate(values)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"summary": {}, "config": {"recipe": "ecg"}, "samples": samples}))
    return path


@pytest.fixture
def ecg_runs(tmp_path):
    values = {"start": [0.0, 0.5, 1.0], "grpo": [0.6, 0.8, 1.0]}
    return {label: read_run(write_ecg(tmp_path / label / "results.json", each)) for label, each in values.items()}


def test_ecg_figures(ecg_runs):
    figures = compare_with_first(ecg_runs)["start"]
    assert {name: figure["value"] for name, figure in figures.items()} == {
        "correctness": pytest.approx(50),
        "coverage": 50,
        "contradiction rate": 0,
        "ROUGE-L": 40,
        "response tokens": 10,
    }


def test_ecg_differences(ecg_runs):
    assert compare_with_first(ecg_runs)["grpo"]["correctness"]["difference"] == pytest.approx(30)


def test_validation_is_averaged_over_categories(tmp_path):
    path = write_metrics(tmp_path / "grpo.jsonl", ECG_METRICS)
    curves = read_curves([path], "val-core/ecg/*/acc/mean@1")
    assert curves["val-core/ecg/*/acc/mean@1"] == {0: pytest.approx(0.3), 5: pytest.approx(0.55)}
    assert curves[TRAINING] == {5: 0.3}


def test_command_line_for_ecg(tmp_path, ecg_runs, capsys):
    metrics = write_metrics(tmp_path / "grpo.jsonl", ECG_METRICS)
    runs = [f"{label}={run.file}" for label, run in ecg_runs.items()]
    summary.main(["--runs", *runs, "--metrics", str(metrics), "--out_dir", str(tmp_path / "out")])
    text = (tmp_path / "out" / "summary.md").read_text()
    assert "| correctness | 3 | 50.0 | 80.0 | +30.0" in text
    assert "30.0 % at step 0 and 55.0 % at step 5" in text
    assert "misreading" not in text + capsys.readouterr().out
    assert not (tmp_path / "out" / "misreadings.png").exists()
    assert "misreadings" not in json.loads((tmp_path / "out" / "summary.json").read_text())


def test_recipes_are_not_mixed(tmp_path, ecg_runs):
    ehrsql = read_run(write_run(tmp_path / "results.json", START))
    with pytest.raises(InputError, match="grpo is of recipe ehrsql, start of ecg"):
        compare_with_first({"start": ecg_runs["start"], "grpo": ehrsql})


def test_unknown_recipes_are_refused(tmp_path):
    (tmp_path / "results.json").write_text('{"config": {"recipe": "chess"}, "samples": []}')
    with pytest.raises(InputError, match=r"is no results\.json of evaluate \('chess'\)"):
        read_run(tmp_path / "results.json")
