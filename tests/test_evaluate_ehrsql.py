import json
import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.common.errors import InputError
from recipes import hardware
from recipes.evaluate import evaluate, parser
from recipes.evaluation.generation import TOO_LONG, GenerationOptions, Generator, Response
from recipes.evaluation.rows import choose_rows
from recipes.models import make_tiny
from recipes.tasks.ehrsql.figures import Sample, summarize
from recipes.tasks.ehrsql.rows import read_rows
from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED, canonical_answer


@pytest.fixture
def db(tmp_path):
    path = tmp_path / "ehr.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE patients (subject_id INTEGER, gender TEXT);"
            "INSERT INTO patients VALUES (1, 'f'), (2, 'm'), (3, 'f');"
        )
    return path


def row(id, question, ground_truth, seen, db, gold_sql=""):
    return {
        "data_source": "ehrsql",
        "prompt": [{"role": "user", "content": question}],
        "ability": "text2sql",
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": {
            "id": id,
            "split": "test",
            "index": 0,
            "question": question,
            "template": f"template of {id}",
            "seen_template": seen,
            "answerable": ground_truth != ABSTAIN,
            "db_path": str(db),
            "gold_sql": gold_sql,
        },
    }


WOMEN = "SELECT count(*) FROM patients WHERE gender = 'f'"


@pytest.fixture
def rows(db):
    return [
        row("women", "How many women?", canonical_answer([(2,)]), "seen", db, WOMEN),
        row("men", "How many men?", canonical_answer([(1,)]), "unseen", db, WOMEN.replace("'f'", "'m'")),
        row("first", "Who came first?", canonical_answer([(1,)]), "seen", db, "SELECT min(subject_id) FROM patients"),
        row(
            "all", "Who is there?", canonical_answer([(1,), (2,), (3,)]), "seen", db, "SELECT subject_id FROM patients"
        ),
        row("shoe", "What is the shoe size of patient 1?", ABSTAIN, "unknown", db, "null"),
        row("hat", "What is the hat size of patient 1?", ABSTAIN, "unknown", db),
        row("gone", "What was in the dropped table?", GOLD_FAILED, "seen", db, "SELECT a FROM dropped"),
    ]


RESPONSES = {
    "How many women?": Response("```sql\nSELECT count(*) FROM patients WHERE gender = 'f'\n```", 12, "stop"),
    "How many men?": Response("SELECT 1", 3, "stop"),
    "Who came first?": Response("null", 1, "stop"),
    "Who is there?": Response("SELECT nobody FROM patients", 5, "stop"),
    "What is the shoe size of patient 1?": Response("null", 1, "stop"),
    "What is the hat size of patient 1?": Response("I would have to [guess], and", 8, "length"),
    "What was in the dropped table?": Response("SELECT 1", 3, "stop"),
}


def fixed_responses(options):
    return lambda prompts: [RESPONSES[prompt[-1]["content"]] for prompt in prompts]


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def dataset(tmp_path, rows):
    return write_parquet(tmp_path / "test.parquet", rows)


def run(tmp_path, dataset, *arguments, model="org/model"):
    given = ["--model_name", model, "--dataset_path", str(dataset), "--output_dir", str(tmp_path / "results")]
    (folder,) = evaluate(parser().parse_args([*given, *arguments]), fixed_responses)
    return folder


@pytest.mark.parametrize(
    ("gpus", "arguments", "dtype"),
    [
        ([], [], "float32"),
        ([hardware.Gpu("NVIDIA H100", 81559, "580.65.06")], [], "bfloat16"),
        ([], ["--dtype", "bfloat16"], "bfloat16"),
    ],
)
def test_the_dtype_is_that_of_training_unless_given_and_is_noted(
    tmp_path, dataset, monkeypatch, gpus, arguments, dtype
):
    monkeypatch.delenv("HARDWARE", raising=False)
    monkeypatch.setattr(hardware, "find_gpus", lambda: gpus)
    assert json.loads((run(tmp_path, dataset, *arguments) / "results.json").read_text())["config"]["dtype"] == dtype


def test_a_whole_evaluation(tmp_path, dataset, capsys):
    folder = run(tmp_path, dataset, "--run_name", "before")
    assert folder == tmp_path / "results" / "model" / "before"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["before"]
    results = json.loads((folder / "results.json").read_text())
    assert results["config"]["model_name"] == "org/model"
    assert results["config"]["dataset_path"] == str(dataset)
    assert results["config"]["recipe"] == "ehrsql"

    samples = {sample["id"]: Sample(**sample) for sample in results["samples"]}
    assert list(samples) == ["women", "men", "first", "all", "shoe", "hat", "gone"]
    assert {id: (s.acc, s.score) for id, s in samples.items()} == {
        "women": (1, 1.0),
        "men": (1, 0.0),  # right for the official scorer, but a constant
        "first": (0, 0.0),
        "all": (0, 0.0),
        "shoe": (1, 1.0),
        "hat": (0, 0.0),
        "gone": (0, 0.0),
    }
    assert samples["women"].sql == "SELECT count(*) FROM patients WHERE gender = 'f'"
    assert samples["women"].executed and samples["women"].reads_table and samples["women"].format_ok
    assert samples["men"].executed and not samples["men"].reads_table
    assert samples["first"].abstained and samples["first"].error == ""
    assert "nobody" in samples["all"].error
    assert samples["hat"].sql is None and samples["hat"].error == "no query in the response"

    summary = results["summary"]
    assert (summary["questions"], summary["answerable"], summary["gold_failed"]) == (6, 4, 1)
    accuracy = summary["execution_accuracy"]
    assert {name: (group["questions"], group["percent"]) for name, group in accuracy.items()} == {
        "seen templates": (3, pytest.approx(100 / 3)),
        "unseen templates": (1, 100),
        "all answerable": (4, 50),
        "all questions": (6, 50),
    }
    assert (accuracy["all answerable"]["low"], accuracy["all answerable"]["high"]) == (0, 100)
    assert summary["select_1_percent"] == 50
    assert summary["right_constants"] == 1
    # 3 right, 1 harmless abstention, 2 wrong
    assert summary["reliability"] == {
        "RS(0)": pytest.approx(50),
        "RS(5)": pytest.approx(100 * (3 - 10) / 6),
        "RS(10)": pytest.approx(100 * (3 - 20) / 6),
        "RS(N)": pytest.approx(100 * (3 - 12) / 6),
    }
    assert summary["executable_percent"] == 50
    assert summary["abstention"]["percent"] == pytest.approx(100 / 3)
    assert summary["abstention"]["precision_percent"] == summary["abstention"]["recall_percent"] == 50
    assert summary["cut_off_percent"] == pytest.approx(100 / 6)
    assert summary["response_tokens_mean"] == pytest.approx(5)

    log = (folder / "evaluation.log").read_text()
    assert "RIGHT      women  How many women?" in log
    assert "response: I would have to [guess], and" in log
    assert "accuracy, seen templates" in log and "accuracy, seen templates" in capsys.readouterr().out


def test_folders_are_named_after_model_and_time(tmp_path, dataset):
    model = tmp_path / "outputs" / "grpo"
    model.mkdir(parents=True)
    folder = run(tmp_path, dataset, model=str(model))
    assert folder.parent.name == "grpo"
    assert folder.name.startswith("run_2")
    named = run(tmp_path, dataset, "--run_name", "x")
    before = (named / "results.json").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        run(tmp_path, dataset, "--run_name", "x")
    assert (named / "results.json").read_bytes() == before


def test_evaluations_at_the_same_time_do_not_replace_each_other(tmp_path, dataset):
    def first_another(prompts):
        run(tmp_path, dataset, "--run_name", "x")
        return fixed_responses(None)(prompts)

    arguments = ["--model_name", "org/model", "--dataset_path", str(dataset), "--output_dir", str(tmp_path / "results")]
    (folder,) = evaluate(parser().parse_args([*arguments, "--run_name", "x"]), lambda options: first_another)
    assert folder.name == "x_2"
    assert sorted(path.parent.name for path in folder.parent.rglob("results.json")) == ["x", "x_2"]


def test_a_model_of_another_recipe_is_warned_of(tmp_path, dataset, capsys):
    model, saved = tmp_path / "grpo", tmp_path / "ecg" / "hydra" / ".hydra"
    model.mkdir()
    saved.mkdir(parents=True)
    (saved / "hydra.yaml").write_text("hydra: {job: {config_name: ecg_grpo}}")
    (model / "export.json").write_text(json.dumps({"checkpoint": str(tmp_path / "ecg" / "global_step_3" / "actor")}))
    run(tmp_path, dataset, model=str(model))
    assert f"warning: recipe ecg has trained {model}; did you mean --recipe ecg?" in capsys.readouterr().err


def test_nothing_is_left_of_a_failed_generation(tmp_path, dataset):
    def fail(prompts):
        raise RuntimeError("out of memory")

    arguments = ["--model_name", "org/model", "--dataset_path", str(dataset), "--output_dir", str(tmp_path / "results")]
    with pytest.raises(RuntimeError):
        evaluate(parser().parse_args(arguments), lambda options: fail)
    assert not list((tmp_path / "results").rglob("*"))


def test_a_database_that_disappears_ends_the_evaluation(tmp_path, dataset, db):
    def remove_database(prompts):
        db.unlink()
        return fixed_responses(None)(prompts)

    arguments = ["--model_name", "org/model", "--dataset_path", str(dataset), "--output_dir", str(tmp_path / "results")]
    with pytest.raises(InputError, match="cannot grade: cannot read the database"):
        evaluate(parser().parse_args(arguments), lambda options: remove_database)
    assert not list((tmp_path / "results").rglob("*"))


def test_db_path_replaces_the_one_in_the_file(tmp_path, db, rows):
    for each in rows:
        each["extra_info"]["db_path"] = str(tmp_path / "elsewhere.sqlite")
    dataset = write_parquet(tmp_path / "test.parquet", rows)
    with pytest.raises(InputError, match=r"no database at .*elsewhere\.sqlite"):
        run(tmp_path, dataset)
    folder = run(tmp_path, dataset, "--db_path", str(db))
    results = json.loads((folder / "results.json").read_text())
    assert results["summary"]["execution_accuracy"]["all questions"]["percent"] == 50


@pytest.fixture
def other_db(tmp_path):
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE patients (subject_id INTEGER, gender TEXT); INSERT INTO patients VALUES (7, 'm'), (8, 'm');"
        )
    return path


def test_gold_is_executed_anew_on_another_database(tmp_path, dataset, rows, other_db, capsys):
    read = read_rows(dataset, other_db, "question_only")
    truths = [row["reward_model"]["ground_truth"] for row in read]
    assert truths == [
        *(canonical_answer(rows) for rows in ([(0,)], [(2,)], [(7,)], [(7,), (8,)])),
        *(ABSTAIN, ABSTAIN, GOLD_FAILED),
    ]
    assert {(row["extra_info"]["db_path"], row["extra_info"]["timeout_s"]) for row in read} == {(str(other_db), 1.0)}
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"gold executed on {other_db}: 4 of 7 answers differ from those of {dataset}"
    )

    def gold(prompts):
        texts = {row["prompt"][-1]["content"]: row["extra_info"]["gold_sql"] or "null" for row in rows}
        return [Response(texts[prompt[-1]["content"]], 1, "stop") for prompt in prompts]

    arguments = ["--model_name", "gold", "--dataset_path", str(dataset), "--output_dir", str(tmp_path / "results")]
    (folder,) = evaluate(parser().parse_args([*arguments, "--db_path", str(other_db)]), lambda options: gold)
    accuracy = json.loads((folder / "results.json").read_text())["summary"]["execution_accuracy"]
    assert accuracy["all questions"]["percent"] == 100


def test_rows_without_gold_are_refused_on_another_database(tmp_path, rows, db, other_db):
    rows[1]["extra_info"]["gold_sql"] = ""
    dataset = write_parquet(tmp_path / "test.parquet", rows)
    with pytest.raises(InputError, match=r"lacks the gold SQL of 1 of 7 questions, so their answers on .*other"):
        run(tmp_path, dataset, "--db_path", str(other_db))
    link = tmp_path / "link.sqlite"
    link.symlink_to(db)
    assert read_rows(dataset, link, "question_only") == read_rows(dataset, None, "question_only")


def test_a_database_on_which_all_gold_fails_is_refused(tmp_path, dataset):
    birds = tmp_path / "birds.sqlite"
    with closing(sqlite3.connect(birds)) as database:
        database.execute("CREATE TABLE birds (name TEXT)")
    with pytest.raises(InputError, match=r"every gold query fails on .*birds\.sqlite .*is it the right database"):
        run(tmp_path, dataset, "--db_path", str(birds))


def test_num_samples_are_drawn_in_the_order_of_the_file(tmp_path, dataset, rows):
    chosen = choose_rows(rows, 4, seed=0)
    assert chosen == [row for row in rows if row in chosen]
    assert len(chosen) == 4
    assert chosen == choose_rows(rows, 4, seed=0)
    assert any(choose_rows(rows, 4, seed) != chosen for seed in range(1, 5))
    folder = run(tmp_path, dataset, "--num_samples", "4")
    results = json.loads((folder / "results.json").read_text())
    assert [sample["id"] for sample in results["samples"]] == [row["extra_info"]["id"] for row in chosen]


@pytest.mark.parametrize("number", [None, 7, 8, 10_000])
def test_as_many_samples_as_there_are_questions_or_more_are_all(rows, number):
    assert choose_rows(rows, number, seed=0) == rows


def write_split(folder, labels):
    folder.mkdir(parents=True)
    data = [{"id": question, "question": question} for question in labels]
    (folder / "data.json").write_text(json.dumps({"version": "1", "data": data}))
    (folder / "label.json").write_text(json.dumps(labels))
    return folder / "data.json"


def test_data_json(tmp_path, db):
    test = {
        "How many women?": "SELECT count(*) FROM patients WHERE gender = 'f'",
        "Who is there?": "SELECT subject_id FROM patients",
        "What is the shoe size of patient 1?": "null",
    }
    dataset = write_split(tmp_path / "questions" / "test", test)
    assert {row["extra_info"]["seen_template"] for row in read_rows(dataset, db, "question_only")} == {"unknown"}

    write_split(tmp_path / "questions" / "train", {"How many men?": "SELECT count(*) FROM patients WHERE gender = 'm'"})
    rows = read_rows(dataset, db, "question_only")
    assert [row["extra_info"]["seen_template"] for row in rows] == ["seen", "unseen", "unknown"]
    truths = [canonical_answer([(2,)]), canonical_answer([(1,), (2,), (3,)]), ABSTAIN]
    assert [row["reward_model"]["ground_truth"] for row in rows] == truths
    folder = run(tmp_path, dataset, "--db_path", str(db))
    accuracy = json.loads((folder / "results.json").read_text())["summary"]["execution_accuracy"]
    assert (accuracy["seen templates"]["percent"], accuracy["unseen templates"]["percent"]) == (100, 0)


def test_data_json_needs_a_database_and_its_own_name(tmp_path, db):
    dataset = write_split(tmp_path / "test", {"Who is there?": "SELECT subject_id FROM patients"})
    with pytest.raises(InputError, match="give --db_path"):
        run(tmp_path, dataset)
    with pytest.raises(InputError, match="few_shot"):
        run(tmp_path, dataset, "--db_path", str(db), "--prompt", "few_shot")
    with pytest.raises(InputError, match="unknown prompt"):
        run(tmp_path, dataset, "--db_path", str(db), "--prompt", "mystery")
    other = dataset.rename(dataset.with_name("questions.json"))
    with pytest.raises(InputError, match="data.json with label.json"):
        run(tmp_path, other, "--db_path", str(db))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_samples", "0"], "give 1 or more"),
        (["--num_samples", "-1"], "give 1 or more"),
        (["--max_response_length", "0"], "at least 1 token"),
        (["--temperature", "-1"], "greedy"),
        (["--seed", "-1"], "--seed is -1"),
        (["--gpu_memory_utilization", "0"], "a share"),
        (["--run_name", "../x"], "use letters"),
        (["--db_path", "absent.sqlite"], "no database at absent.sqlite"),
        (["--prompt", "full_schema"], r"--prompt has no effect on .*\.parquet, which holds its prompts"),
        (["--further_temperature", "1"], "--further_temperature has no effect without --further_answers"),
    ],
)
def test_bad_options(tmp_path, dataset, arguments, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path, dataset, *arguments)


def test_several_models_each_in_a_folder_of_its_own(tmp_path, dataset):
    arguments = ["--dataset_path", str(dataset), "--model_name", "a/one", "a/two", "--output_dir"]
    asked = []

    def make(options):
        asked.append(options.model_name)
        return fixed_responses(options)

    folders = evaluate(parser().parse_args([*arguments, str(tmp_path / "x"), str(tmp_path / "y")]), make)
    assert [folder.parent for folder in folders] == [tmp_path / "x" / "one", tmp_path / "y" / "two"]
    assert asked == ["a/one", "a/two"]
    configs = [json.loads((folder / "results.json").read_text())["config"] for folder in folders]
    assert [config["model_name"] for config in configs] == ["a/one", "a/two"]
    assert configs[1]["output_dir"] == str(tmp_path / "y")
    one_place = evaluate(parser().parse_args([*arguments, str(tmp_path / "z")]), make)
    assert [folder.parent.name for folder in one_place] == ["one", "two"]
    with pytest.raises(InputError, match="names 3 folders for 2 models"):
        evaluate(parser().parse_args([*arguments, "x", "y", "z"]), make)
    with pytest.raises(InputError, match="names a model twice"):
        evaluate(parser().parse_args([*arguments[:2], "--model_name", "a/one", "a/one", *arguments[-1:], "x"]), make)


def test_output_that_cannot_be_written(tmp_path, dataset):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(InputError, match="is not a folder; choose another"):
        run(tmp_path, dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("prompt"), "no column prompt"),
        (lambda row: row.update(data_source="gsm8k"), "'gsm8k'"),
        (lambda row: row.update(prompt="How many?"), "list of chat messages"),
        (lambda row: row.update(prompt=[{"role": "user"}]), "list of chat messages"),
        (lambda row: row.update(reward_model={"style": "rule"}), "no ground_truth"),
        (lambda row: row["extra_info"].pop("seen_template"), "extra_info has no seen_template"),
        (lambda row: row["extra_info"].update(answerable=None), "extra_info has no answerable"),
    ],
)
def test_bad_rows(tmp_path, rows, change, message):
    for each in rows:
        change(each)
    with pytest.raises(InputError, match=f"row 0: .*{message}"):
        run(tmp_path, write_parquet(tmp_path / "test.parquet", rows))


def test_bad_files(tmp_path, rows):
    with pytest.raises(InputError, match="no such dataset"):
        run(tmp_path, tmp_path / "absent.parquet")
    (tmp_path / "test.csv").write_text("id\n1\n")
    with pytest.raises(InputError, match=r"give a \.parquet file"):
        run(tmp_path, tmp_path / "test.csv")
    (tmp_path / "test.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="as parquet"):
        run(tmp_path, tmp_path / "test.parquet")
    empty = pa.Table.from_pylist(rows).slice(0, 0)
    pq.write_table(empty, tmp_path / "test.parquet")
    with pytest.raises(InputError, match="has no rows"):
        run(tmp_path, tmp_path / "test.parquet")
    with pytest.raises(InputError, match="row 1: the id women occurs twice"):
        run(tmp_path, write_parquet(tmp_path / "test.parquet", [rows[0], rows[0]]))
    with pytest.raises(InputError, match="every gold query"):
        run(tmp_path, write_parquet(tmp_path / "test.parquet", rows[-1:]))


def test_bad_models(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        Generator(GenerationOptions(str(tmp_path)))
    with pytest.raises(InputError, match="no such model folder"):
        Generator(GenerationOptions(str(tmp_path / "absent")))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot load"):
        Generator(GenerationOptions(str(tmp_path)))


def test_prompts_without_room_for_a_response_are_counted_and_not_answered(tmp_path, monkeypatch, capsys):
    make_tiny(["word"], tmp_path)  # 1,024 tokens for prompt and response
    generator = Generator(GenerationOptions(str(tmp_path), max_response_length=64))

    def respond(token_ids, max_model_len):
        assert max_model_len == 1024
        return [Response(f"{len(ids)} tokens", 2, "stop") for ids in token_ids]

    monkeypatch.setattr(generator, "_respond", respond)
    prompts = [[{"role": "user", "content": "1" * digits}] for digits in (3, 1021, 1020, 2000)]  # 3 tokens around each
    texts = [(response.text, response.finish_reason) for response in generator(prompts)]
    assert texts == [("6 tokens", "stop"), ("", TOO_LONG), ("1023 tokens", "stop"), ("", TOO_LONG)]
    warning = capsys.readouterr().err.splitlines()[-1]
    assert warning.startswith("warning: 2 of 4 prompts, of up to 2003 tokens, leave no room")
    with pytest.raises(InputError, match="1 of 1 prompts"):
        generator(prompts[1:2])


def test_a_summary_needs_a_graded_sample():
    with pytest.raises(ValueError, match="no sample"):
        summarize([])
