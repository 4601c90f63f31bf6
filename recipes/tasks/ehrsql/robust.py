"""Robust execution accuracy: a right answer counts if the query is right on variants of the database, too.

On one database a wrong query may be right by luck, as ``count(*)`` is for ``count(DISTINCT subject_id)`` where nobody
came twice. The variants of ``data_prep.build_ehr_db`` hold other patients, times and values. (Zhong, Yu and Klein 2020,
arXiv:2010.02840, call such databases a test suite.)
"""

import filecmp
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from data_prep.common.errors import InputError
from data_prep.ehrsql import execute_gold
from data_prep.sql.gold import training_timeout
from data_prep.sql.schema import open_database
from recipes.evaluation.bootstrap import percent_interval
from recipes.evaluation.generation import Response
from recipes.evaluation.rows import Row
from recipes.tasks.ehrsql.rows import without_gold
from reward_fns.ehrsql import grade
from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED, says_nothing

EXAMPLES = 10


@dataclass(frozen=True)
class VariantGold:
    """The right answer to a question on a variant. ``timeout_s``: the deadline of a query, as in training."""

    db_path: str
    ground_truth: str
    timeout_s: float

    @property
    def telling(self) -> bool:
        """Whether the answer tells a right query from a wrong one: there is one, and not of NULL alone."""
        return self.ground_truth != GOLD_FAILED and not says_nothing(self.ground_truth)


def add_variants(rows: Sequence[Row], variants: Sequence[str], dataset: Path) -> None:
    """Execute the gold queries of ``rows``, which are of ``dataset``, on the databases ``variants``.

    Each row then has ``variants``: file name of a variant -> ``VariantGold``.

    Raises:
        InputError: a variant is missing, unreadable, given twice, the database of a row or a copy of it, all gold fails
            on it, or a row lacks its gold query.
    """
    paths = [Path(variant) for variant in variants]
    _check_variants(paths, {row["extra_info"]["db_path"] for row in rows})
    if unknown := without_gold(rows):
        raise InputError(
            f"{dataset} lacks the gold SQL of {len(unknown)} of {len(rows)} questions, so their answers on variants "
            "are unknown; leave --variants out, or prepare the questions with their gold SQL"
        )
    for path in paths:
        answers, _, seconds = execute_gold((row["extra_info"]["gold_sql"] for row in rows), path)
        for row in rows:
            gold = row["extra_info"]["gold_sql"] if row["extra_info"]["answerable"] else ABSTAIN
            timeout_s = training_timeout(seconds.get(gold, 0))
            row.setdefault("variants", {})[path.name] = VariantGold(str(path), answers[gold], timeout_s)


def _check_variants(paths: Sequence[Path], databases: set[str]) -> None:
    for number, path in enumerate(paths):
        open_database(path).close()
        if any(filecmp.cmp(path, database, shallow=False) for database in databases):
            raise InputError(
                f"--variants {path} is the database of the questions, or a copy; build_ehr_db --variants makes others"
            )
        if any(path.samefile(earlier) for earlier in paths[:number]):
            raise InputError(f"--variants names {path} twice; name each variant once")
        if path.name in [earlier.name for earlier in paths[:number]]:
            raise InputError(f"--variants names two files {path.name}; rename one, results go by file name")


def judge_on_variants(
    rows: Sequence[Row], responses: Sequence[Response], pool: Executor
) -> list[dict[str, bool | None]]:
    """For each response: file name of a variant -> whether it is right there, None where gold tells nothing.

    One variant after the other: a process of the sandbox holds one database open.

    Raises ``DatabaseError`` or ``SandboxError`` when a query cannot be executed.
    """
    verdicts: list[dict[str, bool | None]] = [{} for _ in rows]
    for name in rows[0].get("variants", {}):
        judged = pool.map(_is_right, responses, [row["variants"][name] for row in rows])
        judged = track(judged, f"Grading on {name}", len(rows), console=Console(stderr=True))
        for verdict, right in zip(verdicts, judged, strict=True):
            verdict[name] = right
    return verdicts


def _is_right(response: Response, gold: VariantGold) -> bool | None:
    if not gold.telling:
        return None
    return bool(grade(response.text, gold.ground_truth, gold.db_path, gold.timeout_s).acc)


def right_by_luck(sample: Any) -> bool:
    """Whether the answer of a ``Sample`` is right, and its query wrong on a variant."""
    return sample.acc > 0 and False in sample.variants.values()


def robustly_right(sample: Any) -> bool:
    """Whether the answer of a ``Sample`` is right, and its query wrong on no variant."""
    return sample.acc > 0 and not right_by_luck(sample)


def robust_figures(
    samples: Sequence[Any], groups: Mapping[str, Callable[[Any], bool]], seed: int = 0
) -> dict[str, Any]:
    """``robust``: the figures over graded ``Sample``s; nothing where they were not judged on variants.

    ``accuracy``: for each of ``groups`` the ``percent_interval`` of the robustly right answers. ``variants``: the same
    for the right answers on each variant, of the questions whose gold tells something there. ``right_by_luck``: how
    many answers are, and ``examples``, the ids of the first ones. ``judged_on_one``: questions whose gold tells nothing
    on any variant, so that only the database judges.
    """
    names = list(samples[0].variants)
    if not names:
        return {}
    lucky = [sample.id for sample in samples if right_by_luck(sample)]
    figures = {
        "accuracy": {
            group: percent_interval([100.0 * robustly_right(sample) for sample in samples if belongs(sample)], seed)
            for group, belongs in groups.items()
        },
        "variants": {
            name: percent_interval(
                [100.0 * sample.variants[name] for sample in samples if sample.variants[name] is not None], seed
            )
            for name in names
        },
        "right_by_luck": len(lucky),
        "examples": lucky[:EXAMPLES],
        "judged_on_one": sum(set(sample.variants.values()) == {None} for sample in samples),
    }
    return {"robust": figures}


def robust_table(summary: dict[str, Any]) -> Table:
    """The figures of ``robust_figures``, which are ``robust`` of a ``summary``, beside the plain accuracy."""
    robust, plain = summary["robust"], summary["execution_accuracy"]
    caption = f"right by luck, for example: {', '.join(robust['examples'])}" if robust["examples"] else None
    table = Table(
        title=f"Robust accuracy: right on {_variants(len(robust['variants']))} of the database, too", caption=caption
    )
    for column in ("", "plain", "robust", "95 % interval", "questions"):
        table.add_column(column, justify="right" if column else "left")
    for name, figure in robust["accuracy"].items():
        on_database = f"{plain[name]['percent']:.1f} %" if figure["questions"] else ""
        table.add_row(name, on_database, *_cells(figure))
    table.add_section()
    for name, figure in robust["variants"].items():
        table.add_row(f"on {name}", "", *_cells(figure))
    table.add_section()
    for name, key in {"right by luck": "right_by_luck", "judged on the database alone": "judged_on_one"}.items():
        table.add_row(name, "", f"{robust[key]:,}", "", f"{summary['questions']:,}")
    return table


def _variants(number: int) -> str:
    return "1 variant" if number == 1 else f"{number} variants"


def _cells(figure: dict[str, Any]) -> tuple[str, str, str]:
    if not figure["questions"]:
        return "", "", "0"
    return f"{figure['percent']:.1f} %", f"{figure['low']:.1f} to {figure['high']:.1f}", f"{figure['questions']:,}"
