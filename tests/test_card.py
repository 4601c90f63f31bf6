"""The model card: what it says of a model's training and results, and that it holds no patient text."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from omegaconf import OmegaConf

from data_prep.common.errors import InputError
from recipes import card
from recipes.config import compose_config
from recipes.evaluation.results import write_results
from recipes.evaluation.selector import weights_digest
from recipes.report.model_card import base_license, new_card
from recipes.tasks.ehrsql.figures import Sample, summarize

QUESTION, SQL, RESPONSE = "Which drug did patient 10002428 get?", "SELECT drug FROM prescriptions", "SELECT 'insulin'"
SECRETS = (QUESTION, SQL, RESPONSE, "10002428", "insulin", "question-1")


def save_run(folder: Path, config: str, overrides: list[str], checkpoint: str, choices: dict[str, str]) -> Path:
    """What Hydra saves of a training run, and the folder of its checkpoint."""
    saved = folder / "hydra" / ".hydra"
    saved.mkdir(parents=True)
    OmegaConf.save(compose_config(config, overrides), saved / "config.yaml")
    hydra = {"hydra": {"job": {"config_name": config}, "runtime": {"choices": choices}}}
    OmegaConf.save(OmegaConf.create(hydra), saved / "hydra.yaml")
    return folder / checkpoint


def save_export(folder: Path, checkpoint: Path, start_model: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    figures = {"checkpoint": str(checkpoint), "start_model": start_model, "logprob_difference_mean": 0.0034}
    (folder / "export.json").write_text(json.dumps(figures | {"prompt": "full_schema", "think": True}))
    return folder


def write_data(folder: Path, synthetic: bool) -> Path:
    folder.mkdir()
    rows = [{"messages": [{"role": "user", "content": QUESTION}]}] * 3
    for name in ("sft_train", "train"):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    (folder / "manifest.json").write_text(json.dumps({"synthetic": synthetic}))
    return folder


@pytest.fixture
def base(tmp_path) -> Path:
    """The start model with a card of its own."""
    folder = tmp_path / "models" / "base"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A base model\n")
    return folder


@pytest.fixture
def model(tmp_path, base) -> Path:
    """A model after SFT and GRPO, as a run leaves it."""
    data = write_data(tmp_path / "data", synthetic=True)
    files = [f"data.train_files={data}/sft_train.parquet", f"model.path={base}"]
    sft = save_run(tmp_path / "sft", "ehrsql_sft", files, "global_step_1500", {"preset": "tiny", "sft_adapter": "full"})
    sft_model = save_export(tmp_path / "models" / "sft", sft, str(base))
    files = [f"data.train_files={data}/train.parquet", f"actor_rollout_ref.model.path={sft_model}"]
    options = ["+reward.custom_reward_function.reward_kwargs.reliability_penalty=5"]
    choices = {"preset": "tiny", "algo": "grpo", "adapter": "full", "hardware": "cpu"}
    grpo = save_run(tmp_path / "grpo", "ehrsql_grpo", [*files, *options], "global_step_30/actor", choices)
    return save_export(tmp_path / "models" / "grpo", grpo, str(sft_model))


def evaluated(folder: Path, model: Path, **more: str) -> Path:
    """Results of ``evaluate`` about ``model``: two of three answers are right. ``more`` stands in their config."""
    sample = Sample(
        id="question-1", question=QUESTION, template="t", seen_template="seen", answerable=True, gold_sql=SQL,
        ground_truth='[["insulin"]]', response=RESPONSE, response_tokens=9, finish_reason="stop", sql=RESPONSE,
        score=1.0, acc=1.0, executed=True, reads_table=True, abstained=False, timed_out=False, format_ok=True, error="",
    )  # fmt: skip
    wrong = {"id": "question-3", "acc": 0.0, "error": f"no such column: {QUESTION}"}
    samples = [Sample(**vars(sample) | change) for change in ({}, {"id": "question-2"}, wrong)]
    config = {"recipe": "ehrsql", "model_name": str(model), "dataset_path": str(folder.parent / "data/test.parquet")}
    config |= {"max_response_length": 512, "temperature": 0.0, "dtype": "float32", "seed": 0, "num_samples": None}
    write_results(folder, summarize(samples) | {"canaries": {}}, config | more, samples, {})
    return folder


def fill(model: Path, results: Path) -> tuple[str, dict]:
    """The card, and the results beside it."""
    card.main(["--model_dir", str(model), "--results", str(results)])
    return (model / "README.md").read_text(), json.loads((model / "model_results.json").read_text())


def test_a_card_says_how_the_model_was_trained(model):
    text = str(new_card(model))
    assert "| SFT | 1500 | `sft_train.parquet`, 3 rows | preset tiny, sft_adapter full, batch size 16," in text
    assert (
        "| GRPO | 30 | `train.parquet`, 3 rows | preset tiny, algo grpo, adapter full, batch size 32, answers" in text
    )
    assert "`reward_fns/ehrsql.py:compute_score` with `reliability_penalty=5`." in text
    assert "No real patient is described" in text and "Not for use on patients" in text
    assert "Not evaluated yet." in text and "`apache-2.0`" in text and "0.0034 nats" in text
    assert "evaluate --recipe ehrsql --model_name MODEL --dataset_path test.parquet --max_response_length 512" in text
    assert "`--prompt full_schema`" in text and "--recipe ehrsql --models MODEL --think\n" in text
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "text-generation", "apache-2.0")
    assert data.base_model is None  # a folder is no id of the hub
    assert data.tags == ["clinical-rl-recipes", "verl", "ehrsql", "sft", "grpo", "synthetic-data"]
    assert data.eval_results is None


def test_a_card_names_no_path_and_no_question(model, tmp_path):
    text, results = fill(model, evaluated(tmp_path / "results", model))
    for secret in (*SECRETS, str(tmp_path), tmp_path.name):
        assert secret not in text and secret not in json.dumps(results)


def test_results_go_into_the_card_its_model_index_and_a_file(model, tmp_path):
    (model / "README.md").write_text(str(new_card(model)))
    text, results = fill(model, evaluated(tmp_path / "results", model))
    assert results["figures"]["all answerable"] == {
        "questions": 3, "value": pytest.approx(200 / 3), "low": 0, "high": 100,
    }  # fmt: skip
    assert (results["recipe"], results["dataset"], results["synthetic"]) == ("ehrsql", "test.parquet", True)
    assert "| all answerable | 66.7 | 0.0 to 100.0 | 3 |" in text and "Not evaluated yet" not in text
    (index,) = ModelCard(text).data.to_dict()["model-index"]
    assert index["name"] == "base-ehrsql-grpo"
    (result,) = index["results"]
    assert result["dataset"]["name"] == "EHRSQL, test.parquet (synthetic demo)"
    assert {"type": "rs_10", "name": "RS(10)", "value": pytest.approx(-266.67)} in result["metrics"]


def test_filling_a_card_again_changes_nothing_and_keeps_what_its_user_wrote(model, tmp_path):
    results = evaluated(tmp_path / "results", model)
    text, _ = fill(model, results)
    assert fill(model, results)[0] == text
    own = text.replace("license: apache-2.0", "license: mit").replace("## Use", "## Thanks\n\nTo all.\n\n## Use")
    (model / "README.md").write_text(own.replace("66.7", "99.9"))
    again, _ = fill(model, results)
    assert ModelCard(again).data.license == "mit" and "To all." in again
    assert "66.7" in again and "99.9" not in again
    assert not list(model.glob(".*"))


def test_a_model_that_older_versions_exported_gets_a_card(model, tmp_path):
    shutil.rmtree(tmp_path / "grpo")  # nor what Hydra has saved
    (tmp_path / "data" / "manifest.json").write_text("{}")
    figures = json.loads((model / "export.json").read_text())
    (model / "export.json").write_text(json.dumps({key: figures[key] for key in ("checkpoint", "start_model")}))
    text, results = fill(model, evaluated(tmp_path / "results", model))
    assert "| GRPO | 30 | not recorded | not recorded |" in text and "| SFT | 1500 |" in text
    assert "It is not recorded whether patients stand behind the data" in text and "reward of GRPO" not in text
    assert results["synthetic"] is None and "origin not recorded" in text


def test_real_data_are_called_so(model, tmp_path):
    (tmp_path / "data" / "manifest.json").write_text('{"synthetic": false}')
    new = new_card(model)
    assert "not the synthetic demo, and may describe patients" in str(new) and "use agreement" in str(new)
    assert "synthetic-data" not in new.data.tags


def test_a_model_of_the_hub_is_named_with_the_licence_that_the_cache_holds(model, tmp_path, monkeypatch):
    snapshot = tmp_path / "hub" / "models--org--base" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("---\nlicense: other\nlicense_name: own\nlicense_link: https://x\n---\n")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "models" / "sft" / "export.json").unlink()
    figures = json.loads((model / "export.json").read_text())
    (model / "export.json").write_text(json.dumps(figures | {"start_model": "org/base"}))
    data = new_card(model).data
    assert (data.base_model, data.license, data.license_name) == ("org/base", "other", "own")
    assert base_license("org/absent") == {}


@pytest.mark.parametrize("readme", ["# No metadata\n", "---\n[\n---\n", "---\n- a\n---\n"])
def test_a_damaged_card_of_the_base_model_names_no_licence(base, readme):
    (base / "README.md").write_text(readme)
    assert base_license(str(base)) == {}


def test_results_fit_a_copy_of_the_model_and_no_other_weights(model, tmp_path):
    (model / "model.safetensors").write_bytes(b"weights")
    results = evaluated(tmp_path / "results", model, weights_digest=weights_digest(model))
    copy = shutil.copytree(model, tmp_path / "copy")
    fill(copy, results)
    assert (copy / "model_results.json").is_file()
    (copy / "model.safetensors").write_bytes(b"others!")
    with pytest.raises(InputError, match="is about .*grpo, not about .*copy"):
        fill(copy, results)


@pytest.mark.parametrize("source", ["predictions", "server"])
def test_answers_that_the_model_may_not_have_given_are_refused(model, tmp_path, source):
    with pytest.raises(InputError, match="came from elsewhere; evaluate .*grpo itself"):
        fill(model, evaluated(tmp_path / "results", model, **{source: "elsewhere"}))


def test_results_of_a_model_that_is_not_here_are_refused(model, tmp_path):
    with pytest.raises(InputError, match="is about org/model, not about"):
        fill(model, evaluated(tmp_path / "results", Path("org/model")))


def test_bad_input_is_one_line_and_leaves_the_card(model, tmp_path, base):
    results = evaluated(tmp_path / "results", model)
    other = evaluated(tmp_path / "other", base)
    for arguments, message in {
        (model, other): "is about .*base, not about .*grpo",
        (tmp_path / "absent", results): "no model in .*absent",
        (model, tmp_path / "none"): "no such file or folder: .*none",
        (model, model): r"holds no results\.json",
    }.items():
        with pytest.raises(InputError, match=message):
            fill(*arguments)
    with pytest.raises(InputError, match=r"no export\.json in .*base"):
        new_card(base)
    (model / "model_results.json").mkdir()
    (model / "README.md").write_text(str(new_card(model)))
    before = (model / "README.md").read_text()
    with pytest.raises(InputError, match=r"model_results\.json is a folder"):
        fill(model, results)
    assert (model / "README.md").read_text() == before
    for readme, message in {
        "# My model\n": "has no place for results",
        "---\n[\n---\n": "cannot read the metad",
    }.items():
        (model / "README.md").write_text(readme)
        with pytest.raises(InputError, match=message) as error:
            fill(model, results)
        assert "\n" not in str(error.value) and (model / "README.md").read_text() == readme
    (model / "README.md").unlink()
    (model / "export.json").write_text("{}")
    with pytest.raises(InputError, match=r"export\.json names no checkpoint"):
        fill(model, results)
