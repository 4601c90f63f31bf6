"""What environment variables and overrides make of a run."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.common.errors import InputError
from recipes.config import override
from recipes.pipeline import settings
from recipes.pipeline.stages import DryRun, _lasts
from recipes.tasks.ecg.pipeline import Ecg
from recipes.tasks.ehrsql.pipeline import Ehrsql
from recipes.tasks.registry import TASKS


def programs(recipe) -> dict[str, list[str]]:
    shown: dict[str, list[str]] = {}
    recipe.run(DryRun(lambda name, program: shown.update({name: list(program)})))
    return shown


@pytest.mark.parametrize(
    ("variables", "overrides", "preset", "adapter"),
    [
        ({}, [], "tiny", "full"),
        ({"PRESET": "llama3_2_3b"}, [], "llama3_2_3b", "lora"),
        ({"PRESET": "ecg/smollm2_135m"}, [], "smollm2_135m", "lora"),
        ({"PRESET": "tiny"}, ["preset=smollm2_135m"], "smollm2_135m", "lora"),
        ({"HARDWARE": "gpu"}, [], "llama3_2_3b", "lora"),
        # Given as an override, the adapter counts for both stages.
        ({"ADAPTER": "full"}, ["adapter=lora"], "tiny", "lora"),
    ],
)
def test_settings_of_the_ecg_recipe_become_choices(tmp_path, variables, overrides, preset, adapter):
    recipe = Ecg({"OUTPUT_DIR": str(tmp_path)} | variables, [*overrides, "a=1"])
    assert recipe.sft_config() == ("ecg_sft", [f"preset=ecg/{preset}", f"sft_adapter={adapter}"])
    assert recipe.grpo_config() == ("ecg_grpo", [f"preset=ecg/{preset}", f"adapter={adapter}"])
    assert recipe.overrides.trainer == ["a=1"]


def test_an_override_of_the_hardware_replaces_the_variable(tmp_path):
    environ = {"OUTPUT_DIR": str(tmp_path), "HARDWARE_CONFIG": "gpu_8"}
    assert Ehrsql(environ, []).grpo_config() == ("ehrsql_grpo", ["preset=tiny", "hardware=gpu_8"])
    assert Ehrsql(environ, ["hardware=cpu"]).grpo_config() == ("ehrsql_grpo", ["preset=tiny", "hardware=cpu"])


def test_what_concerns_grpo_or_its_judge_does_not_reach_sft(tmp_path):
    overrides = ["recipe.grpo.steps=2", "++recipe.judge_model=M", "recipe.max_length=9"]
    recipe = Ecg({"OUTPUT_DIR": str(tmp_path)}, overrides)
    assert recipe.sft_config()[1] == ["preset=ecg/tiny", "recipe.max_length=9", "sft_adapter=full"]
    assert recipe.grpo_config()[1] == ["preset=ecg/tiny", *overrides, "adapter=full"]


def test_settings_of_grpo_alone_leave_sft_as_it_was(tmp_path):
    overrides = ["recipe.grpo.steps=9", "++recipe.sft.epochs=2", "trainer.save_freq=7"]
    recipe = Ehrsql({"OUTPUT_DIR": str(tmp_path)}, overrides)
    assert recipe.sft_config() == ("ehrsql_sft", ["preset=tiny", "++recipe.sft.epochs=2"])
    shown = programs(recipe)
    assert "++recipe.sft.epochs=2" in shown["sft"]
    assert not {"recipe.grpo.steps=9", "trainer.save_freq=7"} & {*shown["sft"]}
    assert {*overrides} <= {*shown["grpo"]}


@pytest.mark.parametrize("name", TASKS)
def test_the_stages_of_the_demo_hand_on_what_they_make(tmp_path, name):
    recipe = TASKS[name].pipeline({"OUTPUT_DIR": str(tmp_path)}, [])
    shown = programs(recipe)
    assert f"model.path={tmp_path}/models/tiny" in shown["sft"]
    assert f"actor_rollout_ref.model.path={tmp_path}/models/sft" in shown["grpo"]
    start = recipe.start_label
    assert shown["evaluate"][-6:-2] == [
        "--model_name",
        f"{tmp_path}/models/sft",
        f"{tmp_path}/models/grpo",
        "--output_dir",
    ]
    assert shown["evaluate"][-2:] == [f"{tmp_path}/results/{start}", f"{tmp_path}/results/grpo"]
    assert shown["model"][-5:-2] == ["--recipe", name, "--corpus"]
    assert shown["card_sft"][-2:] == ["--results", f"{tmp_path}/results/{start}"]
    teacher = {"ehrsql": "questions/train/teacher.json", "ecg": "demo/teacher/answers.json"}[name]
    assert f"{tmp_path}/data/{teacher}" in shown["parquet"]


def test_variants_are_made_after_training_and_judge_in_the_evaluation(tmp_path):
    shown = programs(Ehrsql({"OUTPUT_DIR": str(tmp_path)}, []))
    assert [*shown][-5:] == ["export_grpo", "variants", "evaluate", "card_sft", "card_grpo"]
    variants = [f"{tmp_path}/data/variants/mimic_iv.variant{number}.sqlite" for number in (1, 2, 3)]
    first = shown["evaluate"].index("--variants") + 1
    assert shown["evaluate"][first : first + 3] == variants
    assert shown["variants"][-2:] == ["--variants", "3"] and f"{tmp_path}/data/variants" in shown["variants"]
    database = set(shown["database"]) - {f"{tmp_path}/data"}
    assert database <= {*shown["variants"]}  # the same tree and options


def test_without_sft_grpo_starts_from_the_start_model(tmp_path):
    shown = programs(Ehrsql({"OUTPUT_DIR": str(tmp_path)}, ["recipe.sft.enabled=False"]))
    assert not {"sft", "card_sft"} & {*shown} and f"{tmp_path}/models/grpo" in shown["card_grpo"]
    assert f"actor_rollout_ref.model.path={tmp_path}/models/tiny" in shown["grpo"]


def test_given_data_replace_the_demo(tmp_path):
    environ = {"OUTPUT_DIR": str(tmp_path), "EHRSQL_DATA": "/q", "EHR_DB": "/db.sqlite", "EHRSQL_TEACHER": "/t.json"}
    shown = programs(Ehrsql(environ, ["recipe.teacher.executing_only=True"]))
    assert not {"demo_ehr", "database", "questions", "variants"} & {*shown} and "--variants" not in shown["evaluate"]
    assert shown["parquet"][-3:] == ["--teacher_labels", "/t.json", "--executing_only"]
    ecg = programs(Ecg({"OUTPUT_DIR": str(tmp_path), "ECG_DATA": "/ecg", "THINK": "1", "PRESET": "smollm2_135m"}, []))
    assert "demo_ecg" not in ecg
    assert {"--think", "--tokenizer"} <= {*ecg["parquet"]} and "--teacher_answers" not in ecg["parquet"]
    assert f"{tmp_path}/models/smollm2_135m" in ecg["evaluate"] and ecg["evaluate"][-1] == f"{tmp_path}/results/base"


def test_a_prompt_of_the_callers_folder_reaches_the_stages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Ehrsql({"OUTPUT_DIR": str(tmp_path / "out")}, ["recipe.prompt=own.jinja"])
    shown = programs(recipe)["parquet"]
    assert shown[shown.index("--prompt") + 1] == recipe.chat_options()[-1] == f"{tmp_path}/own.jinja"


def test_think_reaches_the_data_and_nothing_else(tmp_path):
    def shown(**variables: str) -> dict[str, list[str]]:
        return programs(Ehrsql({"OUTPUT_DIR": str(tmp_path), **variables}, []))

    plain, thinks = shown(), shown(THINK="1")
    assert thinks["parquet"] == [*plain["parquet"], "--think"]
    assert {**thinks, "parquet": plain["parquet"]} == plain == shown(THINK="0")


@pytest.mark.parametrize("name", TASKS)
def test_folders_of_runs_without_think_go_on(tmp_path, name):
    """Their data's settings are what they were before there was such a variable, and others with it."""

    def settings_of(**variables: str) -> tuple[str, ...]:
        seen = []
        stages = DryRun(lambda *_: None)
        stages.same_data = lambda *settings: seen.extend(settings)
        TASKS[name].pipeline({"OUTPUT_DIR": str(tmp_path), **variables}, []).prepare_data(stages)
        return tuple(seen)

    before = {
        "ehrsql": ("", "", "0", "question_only", f"{tmp_path}/data/questions/train/teacher.json"),
        "ecg": ("", "0", "", "0.4", f"{tmp_path}/data/demo/teacher/answers.json"),
    }
    assert settings_of() == settings_of(THINK="0") == before[name] != settings_of(THINK="1")


@pytest.mark.parametrize(
    ("think", "overrides", "message"),
    [
        ("0", ["preset=sql_r1_3b"], "THINK=0, but recipe.prompt=reasoning asks the model to think"),
        ("1", ["recipe.sft.enabled=False"], "THINK=1, but recipe.prompt=question_only does not ask the model to think"),
        ("1", ["recipe.prompt=haiku"], "unknown prompt 'haiku'"),
        ("yes", [], "THINK=yes: use 1, or nothing"),
        ("", ["preset=sql_r1_3b"], None),
        ("1", ["preset=sql_r1_3b"], None),
        ("1", ["preset=qwen2_5_3b"], None),  # without SFT, but its prompt asks
        ("1", [], None),
        ("0", ["recipe.sft.enabled=False"], None),
    ],
)
def test_think_is_refused_where_nothing_would_come_of_it(tmp_path, think, overrides, message):
    def check() -> None:
        Ehrsql({"OUTPUT_DIR": str(tmp_path), "THINK": think}, overrides).check()

    if message is None:
        check()
        return
    with pytest.raises(InputError, match=message) as raised:
        check()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("variables", "overrides", "message"),
    [
        ({"SEED": "-1"}, [], "SEED=-1: give a whole number"),
        ({"SEED": "08"}, [], "SEED=08: give a whole number"),
        ({"NUM_SAMPLES": "0"}, [], "NUM_SAMPLES=0: give a number"),
        ({"NUM_SAMPLES": "1e3"}, [], "NUM_SAMPLES=1e3: give a number"),
        ({"OUTPUT_DIR": "/tmp/my run"}, [], "OUTPUT_DIR=/tmp/my run: use letters"),
        ({"THINK": "yes"}, [], "THINK=yes: use 1, or nothing"),
        ({}, ["a=b=c=["], r"cannot use the override a=b=c=\["),
        ({}, ["recipe.sft.enabled=maybe"], "recipe.sft.enabled=maybe: use true or false"),
        ({}, ["recipe.sft.epochz=2"], "no setting recipe.sft.epochz; did you mean recipe.sft.epochs"),
        ({}, ["+recipe.sft.epochz=2"], "the presets have no recipe.sft.epochz"),
        ({}, ["++recipe.sft.epochz=2"], "the presets have no recipe.sft.epochz"),
        ({}, ["~recipe.sft.epochs"], "give each setting of recipe a value of its own"),
        ({}, ["recipe={model: tiny}"], "give each setting of recipe a value of its own"),
        ({}, ["recipe.teacher=null"], "give each setting of recipe a value of its own"),
        ({}, ["recipe.model=null"], "recipe.model=None: give a name"),
        ({}, ["recipe.model="], "recipe.model=: give a name"),
        ({}, ["recipe.sft.enabled=False"], "the ECG recipe begins with SFT"),
        ({}, ["+recipe.judge_model=X"], "Could not append|the presets have no recipe.judge_model"),
        ({"OUTPUT_DIR": "/tmp/" + 300 * "x"}, ["recipe.sft.epochs=0"], "recipe.sft.epochs is 0"),
        ({}, ["recipe.sft.epochs=0"], "recipe.sft.epochs is 0"),
        ({"PRESET": "bogus"}, [], "Could not find 'preset/ecg/bogus'"),
        (
            {},
            ["trainer.zzz=1"],
            r"no setting trainer\.zzz; to add a setting that verl reads, write \+trainer",
        ),
        (
            {},
            ["+reward.custom_reward_function.reward_kwargs.format_bonuss=1"],
            "no keyword format_bonuss; did you",
        ),
        ({}, ["+reward.custom_reward_function.reward_kwargs.zzz=1"], "takes no keyword zzz; there are format_bonus"),
        ({}, ["judge=served", "+reward.custom_reward_function.reward_kwargs.raise=1"], "did you mean max_raise"),
        (
            {},
            ["reward.custom_reward_function.name=compute_scor"],
            r"ecg\.py has no function compute_scor; did you mean",
        ),
        (
            {},
            ["reward.custom_reward_function.path=null"],
            r"reward\.custom_reward_function\.path is None; name the file",
        ),
        ({}, ["reward.custom_reward_function.reward_kwargs=3"], "reward_kwargs is 3; give names and values"),
        ({}, ["recipe.zzz=1"], r"no setting recipe\.zzz; configs/ lists all settings"),
        ({}, ["actor_rollout_ref.rollout.foo=1"], r"write \+actor_rollout_ref\.rollout\.foo=\.\.\."),
        ({}, ["trainerr.save_freq=1"], r"no setting trainerr\.save_freq; did you mean trainer\.save_freq"),
        ({}, ["reward.custom_reward_function.path=absent.py"], r"no such file: .*absent\.py; check reward"),
        ({}, ["reward.custom_reward_function.path=README.md"], r"cannot read .*README\.md"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(tmp_path, variables, overrides, message):
    with pytest.raises(InputError, match=message) as raised:
        Ecg({"OUTPUT_DIR": str(tmp_path / "out")} | variables, overrides).check()
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "code",
    [
        "def compute_score(data_source, solution_str, ground_truth, **options): ...",
        "from elsewhere import compute_score",
        "async def compute_score(data_source, solution_str, ground_truth, extra_info=None, *, bonus=0): ...",
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None, bonus=0): ...",
    ],
)
def test_a_reward_function_of_ones_own_is_not_run(tmp_path, code):
    (tmp_path / "own.py").write_text(f"{code}\nraise SystemExit")
    function = "reward.custom_reward_function"
    overrides = [f"{function}.path={tmp_path}/own.py", f"+{function}.reward_kwargs.bonus=1"]
    Ecg({"OUTPUT_DIR": str(tmp_path / "out")}, overrides).check()


def test_a_setting_that_another_choice_adds_is_taken(tmp_path):
    recipe = Ecg({"OUTPUT_DIR": str(tmp_path)}, ["judge=served", "recipe.judge_model=X", "++recipe.judge_model=Y"])
    recipe.check()
    assert recipe.block.judge_model == "Y"


@pytest.mark.parametrize(("given", "other"), [("EHRSQL_DATA", "EHR_DB"), ("EHR_DB", "EHRSQL_DATA")])
def test_questions_and_database_belong_together(tmp_path, given, other):
    with pytest.raises(InputError, match=f"{given} is set, but {other} is not set"):
        Ehrsql({"OUTPUT_DIR": str(tmp_path), given: "/x"}, []).check()


def test_a_model_folder_of_any_name_reaches_the_trainers(tmp_path):
    for name in ("a=b", "it's (v2)", "ü"):
        (tmp_path / name).mkdir()
        model = f"recipe.model={override('x', tmp_path / name)[2:]}"
        recipe = Ehrsql({"OUTPUT_DIR": str(tmp_path / "out")}, ["preset=qwen2_5_1_5b", model])
        recipe.check()
        sft = programs(recipe)["grpo"]
        start = next(text for text in sft if text.startswith("actor_rollout_ref.model.path="))
        assert settings.parse_override(start).value() in (str(tmp_path / name), f"{tmp_path}/out/models/sft")
        list(map(_lasts, sft))  # what a training stage makes its key of


def test_data_without_questions_for_the_test_are_refused_before_training(tmp_path):
    recipe = Ehrsql({"OUTPUT_DIR": str(tmp_path), "NUM_SAMPLES": "9"}, [])
    recipe.parquet.mkdir(parents=True)
    with pytest.raises(InputError, match=r"no .*valid\.parquet: the data have no questions for the test"):
        recipe.check_test_set()
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), recipe.parquet / "test.parquet")
    with pytest.raises(InputError, match=r"test\.parquet: the data have no questions"):
        recipe.check_test_set()
    pq.write_table(pa.table({"prompt": ["a", "b", "c"]}), recipe.parquet / "test.parquet")
    recipe.check_test_set()


def test_relative_paths_are_the_callers_and_those_of_env_the_repositorys(tmp_path, monkeypatch):
    (tmp_path / "caller").mkdir()
    (tmp_path / ".env").write_text("EHR_DB=own.sqlite\nOUTPUT_DIR=own\nSEED=3\nPRESET='a b'\nHF_HOME=$HOME/hub\n")
    monkeypatch.setattr(settings, "REPO", tmp_path)
    monkeypatch.chdir(tmp_path / "caller")
    environ = {"ECG_DATA": "../ECG-Expert-QA", "OUTPUT_DIR": "out", "EHRSQL_DATA": "", "HARDWARE": "cpu"}
    settings.load_environment(environ)
    assert environ == {
        "ECG_DATA": f"{tmp_path}/ECG-Expert-QA",
        "EHR_DB": f"{tmp_path}/own.sqlite",
        "EHRSQL_DATA": "",
        "HARDWARE": "cpu",
        "HF_HOME": str(Path.home() / "hub"),
        "OUTPUT_DIR": f"{tmp_path}/caller/out",
        "PRESET": "a b",
        "SEED": "3",
    }


def test_the_repositorys_env_sample_can_be_read(tmp_path, monkeypatch):
    sample = (settings.REPO / ".env.sample").read_text().replace("\n#", "\n")
    (tmp_path / ".env").write_text(sample)
    monkeypatch.setattr(settings, "REPO", tmp_path)
    monkeypatch.setenv("HARDWARE", "cpu")
    environ = dict(os.environ)
    settings.load_environment(environ)
    assert environ["PRESET"] == "tiny"
