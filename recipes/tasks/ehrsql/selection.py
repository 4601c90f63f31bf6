"""Which EHRSQL answers a model had better withhold: chosen on validation questions, measured on others."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from data_prep.common.errors import InputError
from recipes.evaluation.rows import Row
from recipes.evaluation.selective import coverage_and_risk, risk_band, risk_coverage
from recipes.evaluation.selector import Selection, Selector, json_number
from recipes.report.selection_charts import draw_calibration, draw_risk_coverage
from recipes.tasks.ehrsql.defaults import DEFAULT_PROMPT
from recipes.tasks.ehrsql.figures import Sample, graded
from recipes.tasks.ehrsql.rows import read_rows
from recipes.tasks.ehrsql.selection_figures import answer_bins, selection_figures, valid_figures
from recipes.tasks.ehrsql.selection_fit import choose, confidence_of, predictions, score_names
from recipes.tasks.registry import TASKS

DEFAULT_PENALTY = 10.0  # RS(10) is the official score of the shared task
NOT_IN_CHAT = "agreement"  # a chat draws one answer


def load_valid(args: argparse.Namespace, test: Sequence[Row]) -> list[Row]:
    """The validation questions of the file ``args.select``: all of them, whatever ``--num_samples`` says.

    Fills in the file where only the option is given: the valid.parquet beside the dataset, or the valid split of a
    ``data.json``.

    Raises:
        InputError: there is no such file, it is bad, or it holds questions of ``test``.
    """
    if args.select is True:
        args.select = _valid_file(args.dataset_path)
    path = args.select
    if not path.is_file():
        raise InputError(f"no validation questions at {path}; name a file of them: --select FILE")
    think = vars(args).get("think", False)  # of a data.json; rows of a parquet file hold their prompts
    rows = read_rows(path, args.db_path, args.prompt or DEFAULT_PROMPT, think)
    if both := {*map(_question, rows)} & {*map(_question, test)}:
        raise InputError(
            f"{path} holds {len(both):,} of the questions of {args.dataset_path}; a threshold that is chosen on them "
            "says nothing about them: name another file with --select"
        )
    return rows


def _valid_file(dataset: Path) -> Path:
    if dataset.suffix == ".json":
        return dataset.resolve().parent.parent / "valid" / dataset.name
    return dataset.with_name(TASKS["ehrsql"].valid_file)


def _question(row: Row) -> tuple[str, str]:
    return row["extra_info"]["id"], row["extra_info"]["question"]


def select(samples: Sequence[Sample], valid: Sequence[Sample], penalty: float | None, seed: int) -> Selection:
    """Choose by RS(``penalty``) on the samples ``valid``, and measure the choice on ``samples``.

    The summary has what is chosen, what it was compared with and reaches on ``valid``, and ``selection_figures``. An
    answer without a result is withheld unless all are shown.
    """
    penalty = DEFAULT_PENALTY if penalty is None else penalty
    valid = graded(valid)
    names = score_names(valid)
    selector, compared = choose(valid, names, penalty, seed)
    chat = selector
    if NOT_IN_CHAT in selector.weights:
        chat, _ = choose(valid, [name for name in names if name != NOT_IN_CHAT], penalty, seed)
    measured = predictions(graded(samples), selector)
    point = coverage_and_risk(measured, selector.threshold)
    return Selection(
        samples=[replace(sample, withheld=_withheld(sample, selector)) for sample in samples],
        summary={
            "score": selector.name,
            "weights": selector.weights,
            "threshold": json_number(selector.threshold),
            "penalty": penalty,
            "valid": valid_figures(predictions(valid, selector), selector, penalty) | compared,
            **selection_figures(measured, selector, penalty, seed),
        },
        charts={
            "risk_coverage.png": partial(draw_risk_coverage, risk_coverage(measured), risk_band(measured, seed), point),
            "calibration.png": partial(draw_calibration, answer_bins(measured, selector)),
        },
        chat=chat,
        facts={"score": chat.name, "penalty": penalty, "valid_questions": len(valid)},
    )


def _withheld(sample: Sample, selector: Selector) -> bool:
    return not sample.abstained and confidence_of(sample, selector) < selector.threshold
