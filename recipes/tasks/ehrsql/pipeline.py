"""The EHRSQL recipe: raw tables -> database -> questions -> parquet -> SFT -> GRPO -> evaluation."""

import os
from pathlib import Path

from data_prep.common.errors import InputError
from data_prep.sql.prompts import PromptBuilder, is_template_path
from data_prep.sql.schema import open_database
from recipes.pipeline.recipe import Recipe
from recipes.pipeline.stages import Stages
from recipes.tasks.ehrsql.defaults import database_of
from recipes.tasks.registry import TASKS

# The options of the EHRSQL-2024 shared task.
DATABASE_OPTIONS = [
    *("--num_patient", "100", "--timeshift", "--current_time", "2100-12-31 23:59:00", "--start_year", "2100"),
    *("--time_span", "0", "--cur_patient_ratio", "0.1"),
]
VARIANTS = 3  # of the demo's database: half a second each


class Ehrsql(Recipe):
    """``EHRSQL_DATA``, ``EHR_DB`` and ``EHRSQL_TEACHER`` name data; without them, the run makes a demo."""

    task = TASKS["ehrsql"]
    start_label = "start"

    @property
    def database(self) -> Path:
        return Path(self.environ.get("EHR_DB") or self.folder / "data" / "mimic_iv.sqlite")

    @property
    def prompt(self) -> str:
        """A name, or the absolute path of a template: the stages run in a folder of their own."""
        prompt = self.block.prompt
        return os.path.abspath(prompt) if is_template_path(prompt) else prompt

    def default_preset(self) -> str:
        return "tiny"

    @classmethod
    def raw_data(cls, path: Path, db_path: Path | None) -> dict[str, str] | None:
        """EHRSQL-2024's ``train/data.json``, or the folder of its splits."""
        questions = path / "train" / "data.json" if path.is_dir() else path
        if path.name == "data.json" and not path.is_file():
            raise InputError(f"no such file: {path}; python -m data_prep.download ehrsql fetches EHRSQL-2024's")
        if questions.name != "data.json" or not questions.is_file():
            return None
        folder = questions.resolve().parent.parent
        if questions.resolve().parent.name != "train":
            raise InputError(f"{path} holds no questions to train on; give {folder}/train/data.json")
        if not (folder / "valid" / "data.json").is_file():
            raise InputError(f"no {folder}/valid/data.json, which the training is validated on; put it there")
        database = db_path or database_of(questions)
        open_database(database).close()
        return {"EHRSQL_DATA": str(folder), "EHR_DB": str(database.resolve())}

    def check(self) -> None:
        super().check()
        if not self.prepared:
            self._check_think()
        given = [name for name in ("EHRSQL_DATA", "EHR_DB") if self.environ.get(name)]
        if len(given) == 1:
            other = {"EHRSQL_DATA": "EHR_DB", "EHR_DB": "EHRSQL_DATA"}[given[0]]
            raise InputError(
                f"{given[0]} is set, but {other} is not set; name the questions and their database, or neither"
            )

    def _check_think(self) -> None:
        prompt = self.prompt
        asks = PromptBuilder(prompt, self.database, self.think).asks_to_think
        if self.environ.get("THINK") == "0" and asks:
            raise InputError(f"THINK=0, but recipe.prompt={prompt} asks the model to think; choose another prompt")
        if self.think and not asks and not self.trains_sft():
            raise InputError(
                f"THINK=1, but recipe.prompt={prompt} does not ask the model to think, and without SFT nothing else "
                "teaches it; choose another prompt, such as reasoning"
            )

    def prepare_data(self, stages: Stages) -> None:
        data, given = self.folder / "data", self.environ.get("EHRSQL_DATA")
        teacher, imitated = self.environ.get("EHRSQL_TEACHER"), []
        if not teacher and not given and self.block.teacher.demo:
            teacher = str(data / "questions" / "train" / "teacher.json")
        if self.grpo_only:
            teacher = None
        elif teacher:
            imitated = [
                "--teacher_labels",
                teacher,
                *(["--executing_only"] if self.block.teacher.executing_only else []),
            ]
        else:
            imitated = ["--gold_sql_share", str(self.block.gold_sql_share)]

        own = [given or "", self.environ.get("EHR_DB") or ""]
        stages.same_data(*own, str(self.seed), self.prompt, *imitated[1:], *self.think_option)
        if is_template_path(self.prompt):
            stages.after_files([Path(self.prompt)])
        if teacher and self.environ.get("EHRSQL_TEACHER"):
            stages.after_files([Path(teacher)])
        if given:
            questions = Path(given)
            stages.after_files([self.database, *sorted(questions.glob("*/*.json"))])
        else:
            questions = data / "questions"
            self._make_demo(stages, data, questions)
        program = [
            *("python", "-m", "data_prep.ehrsql", "--data_dir", str(questions), "--db", str(self.database)),
            *("--out_dir", str(self.parquet), "--seed", str(self.seed), "--prompt", self.prompt, *imitated),
            *self.think_option,
        ]
        self.parquet_and_model(stages, program)

    def _make_demo(self, stages: Stages, data: Path, questions: Path) -> None:
        tree, program = data / "mimic_iv_tree", ["python", "-m"]
        stages.stage("demo_ehr", tree, [*program, "data_prep.make_demo_ehr", "--out_dir", str(tree)])
        build = [*program, "data_prep.build_ehr_db", "--data_dir", str(tree), "--out_dir", str(data), *DATABASE_OPTIONS]
        stages.stage("database", self.database, build)
        ask = [*program, "data_prep.make_demo_questions", "--db", str(self.database), "--out_dir", str(questions)]
        stages.stage("questions", questions, [*ask, "--train", "6000"])

    def prepare_evaluation(self, stages: Stages) -> None:
        """The demo's variants. After training: older runs, which lack them, keep what they have trained."""
        if variants := self.variants():
            build = [
                "python",
                "-m",
                "data_prep.build_ehr_db",
                "--data_dir",
                str(self.folder / "data" / "mimic_iv_tree"),
            ]
            build += ["--out_dir", str(variants[0].parent), *DATABASE_OPTIONS, "--variants", str(VARIANTS)]
            stages.stage("variants", variants[0].parent, build)

    def variants(self) -> list[Path]:
        """Databases that judge answers beside the demo's; none where the database is given, without its source."""
        if self.environ.get("EHRSQL_DATA"):
            return []
        folder = self.folder / "data" / "variants"
        return [folder / f"mimic_iv.variant{number}.sqlite" for number in range(1, VARIANTS + 1)]

    def test_set(self) -> Path:
        test = self.parquet / self.task.test_file
        if test.is_file() or not self.parquet.is_dir():
            return test
        return self.parquet / self.task.valid_file  # EHRSQL's test labels may be missing

    def chat_options(self) -> list[str]:
        return ["--db_path", str(self.database), "--prompt", self.prompt, *super().chat_options()]

    def real_data(self) -> list[str]:
        return [] if self.environ.get("EHRSQL_DATA") else ["EHRSQL_DATA=data/ehrsql", "EHR_DB=data/mimic_iv.sqlite"]

    def dataset(self) -> list[str]:
        test = self.test_set()
        select = ["--select"] if test.name != self.task.valid_file else []
        variants = ["--variants", *map(str, self.variants())] if self.variants() else []
        return ["--dataset_path", str(test), "--db_path", str(self.database), *variants, *select]


RECIPE = Ehrsql
