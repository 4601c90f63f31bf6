"""Fills the results of an evaluation into a model card.

``python -m recipes.card --model_dir D --results RESULTS`` takes a folder that ``recipes.export`` has written, and
what ``evaluate`` has written about that model: a ``results.json``, or a folder, of which the newest is taken. The
figures go with their 95 % intervals into ``D/README.md``, the card that the Hugging Face Hub shows, and into
``D/model_results.json``. Neither file holds questions or answers.
"""

import argparse
import filecmp
from pathlib import Path

from data_prep.common.errors import InputError, run_main
from recipes.evaluation.results import read_run
from recipes.models import EXPORT_FIGURES
from recipes.report.model_card import write_results
from recipes.report.model_results import model_results
from recipes.trained_models import CARD, CARD_RESULTS


def same_model(first: Path, second: Path) -> bool:
    """Whether two folders are one, or copies of one export."""
    figures = [folder / EXPORT_FIGURES for folder in (first, second)]
    exported = all(file.is_file() for file in figures)
    return first.samefile(second) or (exported and filecmp.cmp(*figures, shallow=False))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_dir", type=Path, required=True, help="folder of the exported model")
    parser.add_argument("--results", type=Path, required=True, help="results.json of evaluate, or a folder with some")
    args = parser.parse_args(argv)
    if not (args.model_dir / "config.json").is_file():
        raise InputError(f"no model in {args.model_dir}: config.json is missing; recipes.export makes such a folder")
    run = read_run(args.results)
    evaluated = Path(run.config["model_name"])
    if evaluated.is_dir() and not same_model(evaluated, args.model_dir):
        raise InputError(f"{run.file} is about {evaluated}, not about {args.model_dir}; give the results of this model")
    write_results(args.model_dir, model_results(run))
    print(f"Wrote {args.model_dir / CARD} and {args.model_dir / CARD_RESULTS}")


if __name__ == "__main__":
    run_main(main)
