"""What ``train`` makes of its options: the stages of a run, and one line for each mistake."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from data_prep.common.errors import InputError
from recipes import hardware, launch, train
from recipes.config import compose_config
from recipes.pipeline.stages import DryRun, Stages
from recipes.tasks.registry import TASKS

# As many as a batch of any preset.
PROMPTS = pa.table({"prompt": [[{"role": "user", "content": "Which leads show the inferior wall in 2023?"}]] * 1024})
SETTINGS = (
    *("HARDWARE", "HARDWARE_CONFIG", "RAY_ADDRESS", "ATTN_IMPLEMENTATION", "GPUS_PER_NODE"),
    *("PRESET", "OUTPUT_DIR", "DEFAULT_DB_PATH"),
)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "find_gpus", list)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


@pytest.fixture
def data(tmp_path) -> Path:
    """Prepared questions."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train", "valid"):
        pq.write_table(PROMPTS, folder / f"{name}.parquet")
    return folder


@pytest.fixture
def raw(tmp_path) -> Path:
    """Questions in EHRSQL-2024's layout, with their database."""
    folder = tmp_path / "mimic_iv"
    for split in ("train", "valid", "test"):
        (folder / split).mkdir(parents=True)
        (folder / split / "data.json").write_text(json.dumps({"data": [{"id": "1", "question": "Who?"}]}))
        (folder / split / "label.json").write_text(json.dumps({"1": "SELECT name FROM birds"}))
    with closing(sqlite3.connect(folder / "mimic_iv.sqlite")) as database:
        database.execute("CREATE TABLE birds (name TEXT)")
    return folder


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").touch()
    return folder


def arguments(data, model, tmp_path, *more: str) -> list[str]:
    return ["--data_path", str(data), "--model_name", str(model), "--output_dir", str(tmp_path / "run"), *more]


def stages_of(argv: list[str], environ: dict[str, str] | None = None) -> dict[str, list[str]]:
    """The program of each stage that ``train`` runs."""
    shown: dict[str, list[str]] = {}
    environ = {"HARDWARE": hardware.choose(hardware.find_gpus())} if environ is None else environ
    train.run_for(train.parse(argv), environ).train(DryRun(lambda name, program: shown.update({name: list(program)})))
    return shown


def trainer(argv: list[str], check: bool = False):
    """The trainer's command, its environment and its composed config, as the stage "grpo" starts it."""
    _, _, module, name, *overrides = stages_of(argv)["grpo"]
    assert module == "recipes.launch"
    command, env = launch.command(name, overrides, check)
    position = command.index("--config-name")
    return command, env, compose_config(command[position + 1], command[position + 2 :])


def test_every_name_is_translated(data, model, tmp_path):
    names = ["--preset", "qwen2_5_1_5b", "--num_epochs", "2", "--batch_size", "8", "--learning_rate", "1e-6"]
    own = ["trainer.save_freq=7", "algo=dapo"]
    wandb = ["--use_wandb", "--wandb_project", "my project", "--wandb_run_name", "run=1"]
    command, env, config = trainer(arguments(data, model, tmp_path, *names, *wandb, *own))
    assert command[1:3] == ["-m", "recipes.trainer.main_ppo"]
    assert config.data.train_files == f"{tmp_path}/run/data/parquet/train.parquet"
    assert config.data.val_files == f"{tmp_path}/run/data/parquet/valid.parquet"
    assert config.actor_rollout_ref.model.path == str(model)
    assert config.recipe.model == str(model)
    assert config.recipe.prompt == "full_schema"
    assert (config.trainer.total_epochs, config.trainer.total_training_steps) == (2, None)
    assert (config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size) == (8, 8)
    assert config.actor_rollout_ref.actor.optim.lr == 1e-6
    assert list(config.trainer.logger) == ["console", "file", "tensorboard", "wandb"]
    assert (config.trainer.project_name, config.trainer.experiment_name) == ("my project", "run=1")
    assert config.trainer.default_local_dir == f"{tmp_path}/run/grpo"
    assert config.trainer.save_freq == 7
    assert config.algorithm.filter_groups.enable
    assert (config.trainer.device, env["VERL_PLATFORM"]) == ("cpu", "cpu")


def test_left_out_names_keep_the_presets_values(data, model, tmp_path):
    _, _, config = trainer(arguments(data / "train.parquet", model, tmp_path))
    assert config.recipe.max_prompt_length == 128  # tiny: a model that no preset names, on a CPU
    assert config.trainer.total_training_steps == config.recipe.grpo.steps
    assert "wandb" not in config.trainer.logger


def test_a_named_model_is_trained_by_grpo_alone_and_exported(data, model, tmp_path):
    stages = stages_of(arguments(data, model, tmp_path))
    assert [*stages] == ["parquet", "model", "grpo", "export_grpo"]
    assert stages["parquet"] == ["ln", "-sfnT", str(data), f"{tmp_path}/run/data/parquet"]
    assert stages["export_grpo"][-2:] == ["--out_dir", f"{tmp_path}/run/models/grpo"]


def test_another_file_of_the_folder_is_taken(data, model, tmp_path):
    (data / "train.parquet").rename(data / "few.parquet")
    _, _, config = trainer(arguments(data / "few.parquet", model, tmp_path))
    assert config.data.train_files == f"{data}/few.parquet"


@pytest.mark.parametrize("named", ["train/data.json", ""])
def test_raw_questions_are_prepared_with_the_presets_prompt_and_all_for_grpo(raw, model, tmp_path, named):
    argv = arguments(raw / named, model, tmp_path, "--preset", "smollm2_135m")
    stages = stages_of(argv, environ := {"HARDWARE": "cpu", "EHRSQL_TEACHER": "/other/teacher.json"})
    assert [*stages] == ["model", "parquet", "grpo", "export_grpo"]
    parquet = stages["parquet"]
    assert parquet[2:9] == ["data_prep.ehrsql", "--data_dir", str(raw), "--db", f"{raw}/mimic_iv.sqlite", "--out_dir", f"{tmp_path}/run/data/parquet"]  # fmt: skip  # noqa: E501
    assert parquet[parquet.index("--prompt") + 1] == "compact_schema"
    assert parquet[parquet.index("--tokenizer") + 1] == str(model)
    assert not {"--gold_sql_share", "--teacher_labels"} & {*parquet}
    assert environ["EHRSQL_DATA"] == str(raw)  # what the checks of the run look at


def test_think_is_for_questions_that_the_run_prepares(raw, data, model, tmp_path):
    thinks = {"HARDWARE": "cpu", "THINK": "1"}
    argv = arguments(raw, model, tmp_path, "--preset", "smollm2_135m")
    assert "--think" in stages_of(argv, dict(thinks))["parquet"]
    with pytest.raises(InputError, match=f"THINK=1, but {data} is prepared already; leave THINK out, or prepare"):
        stages_of(arguments(data, model, tmp_path), dict(thinks))


def test_a_database_of_another_place(raw, model, tmp_path, monkeypatch):
    own = tmp_path / "own.sqlite"
    (raw / "mimic_iv.sqlite").rename(own)
    argv = arguments(raw / "train" / "data.json", model, tmp_path)
    with pytest.raises(InputError, match=r"names no database, and there is no .*mimic_iv\.sqlite; give --db_path"):
        stages_of(argv)
    assert str(own) in stages_of([*argv, "--db_path", str(own)])["parquet"]
    monkeypatch.setenv("DEFAULT_DB_PATH", str(own))
    assert str(own) in stages_of(argv)["parquet"]


def test_raw_questions_without_a_model_are_trained_as_the_preset_says(raw, tmp_path):
    stages = stages_of(["--data_path", str(raw), "--output_dir", str(tmp_path / "run")])
    assert [*stages] == ["parquet", "model", "sft", "export_sft", "grpo", "export_grpo"]
    assert stages["parquet"][-2:] == ["--gold_sql_share", "0.15"]


def test_train_alone_is_the_recipe_without_its_evaluation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environ = {"HARDWARE": "cpu"}
    stages, of_recipe = stages_of([], dict(environ)), {}
    recipe = TASKS["ehrsql"].pipeline(dict(environ), [])
    recipe.run(DryRun(lambda name, program: of_recipe.update({name: list(program)})))
    evaluation = ("variants", "evaluate", "card_sft", "card_grpo")
    assert stages == {name: program for name, program in of_recipe.items() if name not in evaluation}
    assert f"{tmp_path}/outputs/ehrsql_tiny/data/parquet" in stages["parquet"]


def test_the_settings_name_model_data_and_place(raw, model, tmp_path):
    environ = {
        "HARDWARE": "cpu",
        "DEFAULT_MODEL_NAME": str(model),
        "DEFAULT_DATASET_PATH": f"{raw}/test/data.json",
        "DEFAULT_OUTPUT_DIR": f"{tmp_path}/results",
    }
    stages = stages_of([], environ)
    assert [*stages] == ["model", "parquet", "grpo", "export_grpo"]
    assert str(raw) in stages["parquet"]  # its train split, never the test questions
    assert f"trainer.default_local_dir={tmp_path}/results/ehrsql_tiny/grpo" in stages["grpo"]
    assert f"actor_rollout_ref.model.path={model}" in stages["grpo"]
    given = stages_of(["--output_dir", str(tmp_path / "run")], environ)
    assert f"trainer.default_local_dir={tmp_path}/run/grpo" in given["grpo"]


def test_test_questions_of_a_parquet_file_stand_for_those_to_train_on_beside_them(data, model, tmp_path):
    environ = {"HARDWARE": "cpu", "DEFAULT_MODEL_NAME": str(model), "DEFAULT_DATASET_PATH": f"{data}/test.parquet"}
    stages = stages_of(["--output_dir", str(tmp_path / "run")], environ)
    assert stages["parquet"][2] == str(data)


def test_the_settings_are_of_ehrsql_alone(raw, model, tmp_path):
    environ = {"HARDWARE": "cpu", "DEFAULT_MODEL_NAME": str(model), "DEFAULT_DATASET_PATH": f"{raw}/test/data.json"}
    stages = stages_of(["--recipe", "ecg", "--output_dir", str(tmp_path / "run")], environ)
    assert "demo_ecg" in stages and str(model) not in " ".join(stages["grpo"])


def test_the_model_of_a_run_is_trained_on(data, model, tmp_path):
    earlier = tmp_path / "earlier"
    (earlier / "stages").mkdir(parents=True)
    shutil.copytree(model, earlier / "models" / "sft")
    _, _, config = trainer(arguments(data, earlier, tmp_path))
    assert config.actor_rollout_ref.model.path == f"{earlier}/models/sft"


@pytest.mark.parametrize("recipe", TASKS)
def test_the_tiny_model_is_made_for_the_recipe(tmp_path, recipe):
    for name in ("train", "valid"):
        pq.write_table(PROMPTS, tmp_path / f"{TASKS[recipe].file_prefix}{name}.parquet")
    argv = arguments(tmp_path, "tiny", tmp_path, "--recipe", recipe)
    run = train.run_for(train.parse(argv), {"HARDWARE": "cpu"})
    made = []

    def execute(name, program, meanwhile):
        if name in ("parquet", "model"):
            subprocess.run([sys.executable if part == "python" else part for part in program], check=True)
            made.append(name)

    run.train(Stages(run.folder, execute, made.append))
    assert made == ["parquet", "model"]
    tokenizer = AutoTokenizer.from_pretrained(run.start_model)
    assert tokenizer.tokenize("2023") == {"ehrsql": ["2023"], "ecg": list("2023")}[recipe]
    assert (run.folder / "data" / "parquet" / TASKS[recipe].train_file).samefile(tmp_path / TASKS[recipe].train_file)


@pytest.mark.parametrize("preset", [[], ["--preset", "tiny"], ["--preset", "ecg/tiny"]])
def test_the_ecg_recipe_has_its_own_files_preset_and_reward(data, model, tmp_path, preset):
    for name in ("train", "valid"):
        (data / f"{name}.parquet").rename(data / f"grpo_{name}.parquet")
    _, _, config = trainer(arguments(data, model, tmp_path, "--recipe", "ecg", *preset))
    assert config.data.train_files == f"{tmp_path}/run/data/parquet/grpo_train.parquet"
    assert config.data.val_files == f"{tmp_path}/run/data/parquet/grpo_valid.parquet"
    tiny = compose_config("ecg_grpo", ["preset=ecg/tiny"])
    assert config.recipe.max_response_length == tiny.recipe.max_response_length
    assert config.reward.custom_reward_function.path.endswith("reward_fns/ecg.py")


@pytest.mark.parametrize(
    ("recipe", "known", "on_gpu"),
    [("ehrsql", "MPX0222forHF/SQL-R1-3B", "sql_r1_3b"), ("ecg", "meta-llama/Llama-3.2-3B-Instruct", "llama3_2_3b")],
)
def test_preset_of_a_model(recipe, known, on_gpu, monkeypatch):
    assert train.preset_for(known, TASKS[recipe]) == on_gpu
    assert train.preset_for("some/other-model", TASKS[recipe]) == "tiny"
    monkeypatch.setattr(hardware, "find_gpus", lambda: [hardware.Gpu("NVIDIA H100", 81559, "580.65.06")])
    assert train.preset_for("some/other-model", TASKS[recipe]) == on_gpu


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--preset", "tyni"], "tyni"),
        (["trainer.save_frequency=1"], "save_frequency"),
        (["hardware=gpu_1"], "hardware=cpu"),
        (["--model_name", "no/such/model"], "no/such/model"),
        (["--batch_size", "0"], "--batch_size is 0"),
        (["--learning_rate", "nan"], "--learning_rate is nan"),
        (["--learning_rate", "inf"], "--learning_rate is inf"),
        (["--db_path", "ehr.sqlite"], "names its database itself; leave --db_path out"),
    ],
)
def test_errors_are_one_line_and_write_nothing(data, model, tmp_path, more, named):
    with pytest.raises(InputError) as error:
        train.main(arguments(data, model, tmp_path, *more))
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("named", "removed", "message"),
    [
        ("test/data.json", None, r"no questions to train on; give .*mimic_iv/train/data\.json"),
        ("train/data.json", "valid", r"no .*/valid/data\.json, which the training is validated on"),
        ("train/label.json", None, r"no such parquet file: .*label\.json; --data_path is a folder that data_prep"),
        ("elsewhere/data.json", None, r"no such file: .*elsewhere/data\.json; python -m data_prep\.download ehrsql"),
    ],
)
def test_raw_questions_that_are_not_whole(raw, model, tmp_path, named, removed, message):
    if removed:
        shutil.rmtree(raw / removed)
    with pytest.raises(InputError, match=message):
        train.main(arguments(raw / named, model, tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_database_without_questions_is_refused():
    with pytest.raises(InputError, match="--db_path is the database of the questions in --data_path; give that, too"):
        stages_of(["--db_path", "ehr.sqlite"])


def test_the_sft_of_a_preset_needs_its_pairs(data, tmp_path):
    with pytest.raises(InputError, match=r"no sft_train\.parquet beside .* for preset tiny's SFT; give a --model_name"):
        stages_of(["--data_path", str(data), "--output_dir", str(tmp_path / "run")])
    pq.write_table(PROMPTS, data / "sft_train.parquet")
    assert "sft" in stages_of(["--data_path", str(data), "--output_dir", str(tmp_path / "run")])


@pytest.mark.parametrize(
    "more", [["--num_epochs", "abc"], ["--batch_size", "1.5"], ["--learning_rate", "x"], ["--recipe", "absent"]]
)
def test_a_value_of_the_wrong_kind_is_refused(data, model, tmp_path, more, capsys):
    with pytest.raises(SystemExit) as error:
        train.main(arguments(data, model, tmp_path, *more))
    assert error.value.code != 0
    assert f"argument {more[0]}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_missing_data(data, model, tmp_path):
    (data / "valid.parquet").unlink()
    with pytest.raises(InputError, match="valid.parquet"):
        train.main(arguments(data, model, tmp_path))
    with pytest.raises(InputError, match="absent"):
        train.main(arguments(tmp_path / "absent", model, tmp_path))


def test_other_data_do_not_go_on_with_a_run(data, model, tmp_path):
    def started(argv) -> list[str]:
        run = train.run_for(train.parse(argv), {"HARDWARE": "cpu"})
        ran = []

        def execute(name, program, meanwhile):
            ran.append(name)
            if name == "parquet":
                subprocess.run(program, check=True)
            if name == "grpo":
                (run.folder / "grpo").mkdir(exist_ok=True)
                (run.folder / "grpo" / "latest_checkpointed_iteration.txt").write_text("3")

        run.train(Stages(run.folder, execute, lambda name: None))
        return ran

    assert started(arguments(data, model, tmp_path)) == ["parquet", "model", "grpo", "export_grpo"]
    assert started(arguments(data, model, tmp_path)) == []
    assert started(arguments(data, model, tmp_path, "--num_epochs", "9")) == ["grpo", "export_grpo"]
    assert started(arguments(data, model, tmp_path, "--num_epochs", "9", "--use_wandb")) == ["grpo", "export_grpo"]
    with pytest.raises(InputError, match="grpo holds a run on other data, from another model or with other settings"):
        started(arguments(data, model, tmp_path, "--batch_size", "4"))
    shutil.copytree(data, tmp_path / "copy")
    with pytest.raises(InputError, match="run holds a run on other data"):
        started(arguments(tmp_path / "copy", model, tmp_path))
    pq.write_table(PROMPTS.slice(1), data / "train.parquet")
    with pytest.raises(InputError, match="grpo holds a run on other data, from another model or with other settings"):
        started(arguments(data, model, tmp_path))


def test_gpu_asked_for_and_not_there(data, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HARDWARE", "gpu")
    with pytest.raises(InputError, match="nvidia-smi finds no GPU"):
        train.main(arguments(data, model, tmp_path))


def test_environment_of_a_gpu_run(data, model, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "find_gpus", lambda: [hardware.Gpu("NVIDIA H100", 81559, "580.65.06")])
    find_spec = launch.importlib.util.find_spec
    monkeypatch.setattr(
        launch.importlib.util, "find_spec", lambda name: None if name == "flash_attn" else find_spec(name)
    )
    _, env, config = trainer(arguments(data, model, tmp_path))
    assert config.trainer.device == "cuda"
    assert config.actor_rollout_ref.model.override_config.attn_implementation == "sdpa"
    assert "VERL_PLATFORM" not in env


def test_a_running_cluster_is_joined_without_resources(data, model, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, env, config = trainer(arguments(data, model, tmp_path))
    assert config.ray_kwargs.ray_init.num_cpus is None
    assert config.ray_kwargs.ray_init.num_gpus is None
    assert config.ray_kwargs.ray_init.runtime_env.env_vars.VERL_PLATFORM == "cpu"
    assert "CUDA_VISIBLE_DEVICES" not in env


def test_a_model_folder_of_any_name_reaches_the_trainer(data, model, tmp_path):
    model.rename(tmp_path / "my model")
    _, _, config = trainer(arguments(data, tmp_path / "my model", tmp_path))
    assert config.actor_rollout_ref.model.path == f"{tmp_path}/my model"
