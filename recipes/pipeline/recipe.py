"""The stages around verl that all recipes share: start model, SFT, GRPO, export, evaluation."""

import re
from abc import ABC, abstractmethod
from collections.abc import MutableMapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from omegaconf import DictConfig, OmegaConf
from pyarrow.parquet import read_metadata

from data_prep.common.errors import InputError
from recipes.config import compose_config, override
from recipes.models import MADE_HERE
from recipes.pipeline.settings import Overrides, output_folder, parse_override, sort_overrides, switch, whole_number
from recipes.pipeline.stages import Stages
from recipes.reward_function import check_reward_function
from recipes.tasks.registry import Task
from recipes.trained_models import CARD_RESULTS, STAGES

CHOICES = ("preset", "hardware")  # Hydra takes each choice once: as an override they replace the variables


def setting(key: str, value: object) -> str:
    """An override; the value is quoted only where Hydra needs it."""
    return f"{key}={value}" if re.fullmatch(r"[A-Za-z0-9._/@-]+", str(value)) else override(key, value)


class Recipe(ABC):
    """A run of a recipe, as the environment and the overrides describe it.

    ``sft_only``: SFT is the last training. ``grpo_only``: no SFT, GRPO has all training questions. ``prepared`` may be
    set to a folder of parquet files that takes the place of the recipe's own data.

    Raises:
        InputError: a setting is bad. Nothing has been written then.
    """

    task: ClassVar[Task]
    choices: ClassVar[tuple[str, ...]] = CHOICES
    start_label: ClassVar[str]  # of the evaluation before GRPO

    def __init__(
        self,
        environ: MutableMapping[str, str],
        overrides: Sequence[str],
        sft_only: bool = False,
        grpo_only: bool = False,
    ):
        self.environ = environ
        self.sft_only = sft_only
        self.grpo_only = grpo_only
        self.prepared: Path | None = None
        self.given = list(overrides)
        self.overrides: Overrides = sort_overrides(overrides, self.choices)
        self.seed = whole_number(environ, "SEED", 0, "a whole number of at most nine digits") or 0
        self.num_samples = whole_number(environ, "NUM_SAMPLES", 1, "a number of test questions, or nothing for all")
        self.think = switch(environ, "THINK")  # the model reasons before it answers
        preset = self.overrides.choices.get("preset") or environ.get("PRESET") or self.default_preset()
        self.preset = preset.removeprefix(self.task.preset_folder)
        outputs = environ.get("DEFAULT_OUTPUT_DIR") or "outputs"
        self.folder = output_folder(environ.get("OUTPUT_DIR") or f"{outputs}/{self.task.name}_{self.preset}")
        self.parquet, self.models, self.results = (self.folder / part for part in ("data/parquet", "models", "results"))
        self.start_model = ""

    @abstractmethod
    def default_preset(self) -> str: ...

    @abstractmethod
    def prepare_data(self, stages: Stages) -> None:
        """From raw data to parquet files and a start model."""

    @classmethod
    def raw_data(cls, path: Path, db_path: Path | None) -> dict[str, str] | None:
        """The variables of a run on raw data at ``path``; None where there are none of a kind that ``train`` takes.

        Raises:
            InputError: the data or their database are incomplete.
        """
        return None

    # --- settings -----------------------------------------------------------------------------------------------------

    def sft_config(self) -> tuple[str, list[str]]:
        """Name and choices of SFT."""
        return f"{self.task.name}_sft", [f"preset={self.task.preset_folder}{self.preset}", *self.overrides.of_sft()]

    def grpo_config(self) -> tuple[str, list[str]]:
        """Name and choices of GRPO."""
        hardware = self.overrides.choices.get("hardware") or self.environ.get("HARDWARE_CONFIG")
        choices = [f"preset={self.task.preset_folder}{self.preset}", *self.overrides.recipe]
        return f"{self.task.name}_grpo", [*choices, *([f"hardware={hardware}"] if hardware else [])]

    @cached_property
    def config(self) -> DictConfig:
        """The config of the last training, GRPO or SFT."""
        name, choices = self.sft_config() if self.sft_only else self.grpo_config()
        return compose_config(name, [*choices, *self.overrides.trainer])

    @property
    def block(self) -> DictConfig:
        """Its block ``recipe``: the preset with the overrides."""
        return self.config.recipe

    def check(self) -> None:
        """Check the settings of all stages.

        Raises:
            InputError: an override or a choice does not exist, or a setting is bad.
        """
        self._check_added()
        if self.think and self.prepared:
            raise InputError(
                f"THINK=1, but {self.prepared} is prepared already; leave THINK out, or prepare the data with --think"
            )
        for key in ("model", "prompt"):
            value = self.block.get(key)
            if not isinstance(value, str) or not value:
                raise InputError(f"recipe.{key}={value}: give a name")
        for key in ("sft.enabled", "teacher.demo", "teacher.executing_only"):
            value = OmegaConf.select(self.block, key, default=False)
            if not isinstance(value, bool):
                raise InputError(f"recipe.{key}={value}: use true or false")
        if not self.sft_only:
            check_reward_function(self.config)
        if self.trains_sft() and not self.sft_only:  # a mistake for SFT alone shows before GRPO has run
            compose_config(*self.sft_config())

    def _check_added(self) -> None:
        """Hydra lets ``+recipe.sft.epochz=3`` add a setting, which no program would read."""
        name, choices = self.sft_config() if self.sft_only else self.grpo_config()
        added = [text for text in self.overrides.recipe if text.startswith("+")]
        known = compose_config(name, [text for text in (*choices, *self.overrides.trainer) if text not in added])
        for text in added:
            key = parse_override(text).key_or_group
            block, _, setting = key.rpartition(".")
            if setting not in (OmegaConf.select(known, block) or {}):
                raise InputError(f"cannot use the override {text}: the presets have no {key}; configs/preset lists all")

    def trains_sft(self) -> bool:
        return not self.grpo_only and OmegaConf.select(self.block, "sft.enabled", default=True)

    @property
    def think_option(self) -> list[str]:
        """What tells programs of ``THINK=1``."""
        return ["--think"] if self.think else []

    # --- stages -------------------------------------------------------------------------------------------------------

    def evaluated_models(self) -> dict[str, str]:
        """By labels: before GRPO, after it, and others."""
        return {self.start_label: self.start_model, "grpo": str(self.models / "grpo")}

    def run_sft(self, stages: Stages) -> None:
        """From nothing to the SFT model, which ``start_model`` is then."""
        self.prepare_data(stages)
        self.start_model = str(self.train_sft(stages, overrides=self.overrides.trainer))

    def run(self, stages: Stages) -> None:
        """From nothing to the results: SFT where the preset asks for it, GRPO, evaluations before and after."""
        self.prepare_data(stages)
        if not stages.dry_run:
            self.check_test_set()
        self._train(stages)
        self.prepare_evaluation(stages)
        self.evaluate(stages, "evaluate", self.evaluated_models())
        self._fill_cards(stages)

    def prepare_evaluation(self, stages: Stages) -> None:  # noqa: B027  few recipes have anything to prepare
        """What evaluations need and training does not."""

    def train(self, stages: Stages) -> None:
        """The same without evaluations, on the ``prepared`` data where they are given."""
        if self.prepared:
            self._take(stages, self.prepared)
        else:
            self.prepare_data(stages)
        self._train(stages)

    def _train(self, stages: Stages) -> None:
        if self.trains_sft():
            self.start_model = str(self.train_sft(stages))
        self.train_grpo(stages)

    def _take(self, stages: Stages, prepared: Path) -> None:
        """A link to the prepared data where the run's own would be, and the start model."""
        stages.same_data(str(prepared))
        stages.after_files(sorted(prepared.glob("*.parquet")))
        if not stages.dry_run:
            self.parquet.parent.mkdir(parents=True, exist_ok=True)
        stages.stage("parquet", self.parquet, ["ln", "-sfnT", str(prepared), str(self.parquet)])
        self._make_model(stages, [file for file in self._texts() if (prepared / file.name).is_file()])

    def parquet_and_model(self, stages: Stages, program: Sequence[str]) -> None:
        """Data preparation by ``program``, and the start model."""
        if self.block.model == "tiny":  # its tokenizer is trained on the data
            stages.stage("parquet", self.parquet, program)
            self._make_model(stages, self._texts())
        else:
            self._make_model(stages, [])
            length = ["--tokenizer", self.start_model, "--max_prompt_length", str(self.block.max_prompt_length)]
            stages.stage("parquet", self.parquet, [*program, *length])

    def _texts(self) -> list[Path]:
        return [self.parquet / file for file in ("sft_train.parquet", self.task.train_file)]

    def _make_model(self, stages: Stages, corpus: Sequence[Path]) -> None:
        """The start model; ``corpus`` is what the tiny one's tokenizer is trained on."""
        model = self.block.model
        self.start_model = str(self.models / model) if model in MADE_HERE else model
        make = ["python", "-m", "recipes.models", model, "--out_dir", self.start_model]
        if model == "tiny":
            make += ["--seed", str(self.seed), "--recipe", self.task.name, "--corpus", *map(str, corpus)]
        stages.stage("model", Path(self.start_model), make)

    def check_test_set(self) -> None:
        """Before the training whose result it is to measure.

        Raises:
            InputError: there are no test questions.
        """
        test = self.test_set()
        if not test.is_file() or not read_metadata(test).num_rows:
            raise InputError(f"no {test}: the data have no questions for the test; give more of them")

    def test_set(self) -> Path:
        return self.parquet / self.task.test_file

    def train_sft(
        self, stages: Stages, name: str = "sft", overrides: Sequence[str] = (), pairs: Path | None = None
    ) -> Path:
        """SFT of the start model on ``pairs``, and its export, which is returned."""
        config, choices = self.sft_config()
        checkpoints, model = self.folder / name, self.models / name
        program = [
            *("python", "-m", "recipes.launch", config, *choices),
            setting("data.train_files", pairs or self.parquet / "sft_train.parquet"),
            setting("data.val_files", self.parquet / "sft_valid.parquet"),
            setting("model.path", self.start_model),
            setting("trainer.seed", self.seed),
            setting("trainer.default_local_dir", checkpoints),
            *overrides,
        ]
        stages.training(name, checkpoints, program)
        self.export(stages, name)
        return model

    def train_grpo(self, stages: Stages) -> None:
        """GRPO from the start model, and its export."""
        config, choices = self.grpo_config()
        checkpoints = self.folder / "grpo"
        program = [
            *("python", "-m", "recipes.launch", config, *choices),
            setting("data.train_files", self.parquet / self.task.train_file),
            setting("data.val_files", self.parquet / self.task.valid_file),
            setting("data.seed", self.seed),
            setting("actor_rollout_ref.model.path", self.start_model),
            setting("trainer.default_local_dir", checkpoints),
            *self.overrides.trainer,
        ]
        stages.training("grpo", checkpoints, program)
        self.export(stages, "grpo")

    def export(self, stages: Stages, name: str) -> None:
        """The Hugging Face folder of a training run, compared with its policy."""
        program = [
            *("python", "-m", "recipes.export", "--checkpoint_dir", str(self.folder / name)),
            *("--start_model", self.start_model, "--prompts", str(self.parquet / self.task.valid_file)),
            *("--out_dir", str(self.models / name)),
        ]
        stages.stage(f"export_{name}", self.models / name, program)

    def evaluate(self, stages: Stages, name: str, models: dict[str, str]) -> None:
        """The stage ``name``: evaluates models, by their labels, on the test questions."""
        number = ["--num_samples", str(self.num_samples)] if self.num_samples else []
        folders = [str(self.results / label) for label in models]
        program = [
            *("python", "-m", "recipes.evaluate", *self.dataset()),
            *("--max_response_length", str(self.block.max_response_length), *number),
            *("--model_name", *models.values(), "--output_dir", *folders),
        ]
        stages.stage(name, self.results, program)

    def _fill_cards(self, stages: Stages) -> None:
        """Results into the cards of the models that the run has trained."""
        for label, model in self.evaluated_models().items():
            if Path(model) in [self.models / stage for stage in STAGES]:
                program = ["python", "-m", "recipes.card", "--model_dir", model, "--results", str(self.results / label)]
                stages.stage(f"card_{Path(model).name}", Path(model) / CARD_RESULTS, program)

    def chat_options(self) -> list[str]:
        """The arguments of ``recipes.chat`` for the run's models, besides its folder."""
        return self.think_option

    @abstractmethod
    def real_data(self) -> list[str]:
        """Variables that name real data in the place of a demo's; none for a run on given data."""

    @abstractmethod
    def dataset(self) -> list[str]:
        """The arguments of ``evaluate`` that say which questions."""
