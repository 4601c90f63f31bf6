"""The ECG recipe: questions -> parquet -> SFT on written answers -> GRPO with the ECG grader -> evaluation."""

from collections.abc import MutableMapping, Sequence
from pathlib import Path

from data_prep.common.errors import InputError
from recipes.pipeline.recipe import CHOICES, Recipe
from recipes.pipeline.settings import REPO
from recipes.pipeline.stages import Stages
from recipes.tasks.registry import TASKS

# What the grader and the prompts are made of: other data where these files change.
SOURCES = ("reward_fns/ecg_ontology.yaml", "configs/prompts/ecg/system.jinja", "configs/prompts/ecg/user.jinja")
DEMO_SHARES = ("--valid_share", "0.06", "--test_share", "0.2")  # 1,000 test questions: 5 points are more than noise


class Ecg(Recipe):
    """``ECG_DATA`` and ``ECG_TEACHER`` name data; without them, the run makes a demo."""

    task = TASKS["ecg"]
    choices = (*CHOICES, "adapter")  # of SFT and GRPO alike
    start_label = "sft"

    def __init__(
        self,
        environ: MutableMapping[str, str],
        overrides: Sequence[str],
        sft_only: bool = False,
        grpo_only: bool = False,
    ):
        super().__init__(environ, overrides, sft_only, grpo_only)
        lora = "full" if self.preset == "tiny" else "lora"
        self.adapter = self.overrides.choices.get("adapter") or environ.get("ADAPTER") or lora
        self.base_model = ""

    def default_preset(self) -> str:
        return "llama3_2_3b" if self.environ.get("HARDWARE") == "gpu" else "tiny"

    def sft_config(self) -> tuple[str, list[str]]:
        name, choices = super().sft_config()
        return name, [*choices, f"sft_adapter={self.adapter}"]

    def grpo_config(self) -> tuple[str, list[str]]:
        name, choices = super().grpo_config()
        return name, [*choices, f"adapter={self.adapter}"]

    # GRPO's policy and its KL term's reference are the SFT model, its LoRA adapter merged: verl's reference for an
    # adapter is the model under it.

    def evaluated_models(self) -> dict[str, str]:
        models = super().evaluated_models()
        return models if self.block.model == "tiny" else models | {"base": self.base_model}  # tiny's weights are random

    def prepare_data(self, stages: Stages) -> None:
        given, teacher = self.environ.get("ECG_DATA"), self.environ.get("ECG_TEACHER")
        raw = Path(given) if given else self.folder / "data" / "demo"
        if not teacher and not given and self.block.teacher.demo:
            teacher = str(raw / "teacher" / "answers.json")
        settings = [given or "", str(self.seed), "1" if self.think else "", str(self.block.sft_share)]
        stages.same_data(*settings, *([teacher] if teacher else []))
        stages.after_contents(REPO, SOURCES)
        if self.environ.get("ECG_TEACHER"):
            stages.after_files([Path(teacher)])
        shares: Sequence[str] = ()
        if given:
            stages.after_files(sorted(raw.glob("*.json")))
        else:
            stages.stage("demo_ecg", raw, ["python", "-m", "data_prep.make_demo_ecg", "--out_dir", str(raw)])
            shares = DEMO_SHARES
        program = [
            *("python", "-m", "data_prep.ecg_expert_qa", "--data_dir", str(raw), "--out_dir", str(self.parquet)),
            *("--seed", str(self.seed), "--sft_share", str(self.block.sft_share), *shares),
            *(["--teacher_answers", teacher] if teacher else []),
            *self.think_option,
        ]
        self.parquet_and_model(stages, program)
        self.base_model = self.start_model

    def check(self) -> None:
        super().check()
        if not self.trains_sft() and not self.grpo_only:
            raise InputError("recipe.sft.enabled=False: the ECG recipe begins with SFT; leave this out")

    def real_data(self) -> list[str]:
        return [] if self.environ.get("ECG_DATA") else ["ECG_DATA=ECG-Expert-QA"]

    def dataset(self) -> list[str]:
        return ["--recipe", "ecg", "--dataset_path", str(self.test_set())]


RECIPE = Ecg
