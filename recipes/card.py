"""Fills the results of an evaluation into a model card.

``python -m recipes.card --model_dir D --results RESULTS`` takes a folder that ``recipes.export`` has written, and
what ``evaluate`` has written about that model: a ``results.json``, or a folder, of which the newest is taken. Answers
of a server or of a file are refused: nobody knows whether they are this model's. The figures go with their 95 %
intervals into ``D/README.md``, the card that the Hugging Face Hub shows, and into ``D/model_results.json``. Neither
file holds questions or answers.
"""

import argparse
from pathlib import Path

from data_prep.common.errors import InputError, run_main
from recipes.evaluation.results import Run, read_run
from recipes.evaluation.selector import weights_digest
from recipes.report.model_card import write_results
from recipes.report.model_results import model_results
from recipes.trained_models import CARD, CARD_RESULTS


def check_model(run: Run, model_dir: Path) -> None:
    """Raise an ``InputError`` unless ``run`` has evaluated the model in ``model_dir``, or a copy of the model."""
    for source in ("predictions", "server"):
        if run.config.get(source):
            raise InputError(f"the answers of {run.file} came from {run.config[source]}; evaluate {model_dir} itself")
    evaluated, digest = Path(run.config.get("model_name") or ""), run.config.get("weights_digest")
    same_folder = evaluated.is_dir() and evaluated.samefile(model_dir)
    if digest and digest == weights_digest(model_dir) or same_folder and not digest:
        return
    if same_folder:
        raise InputError(f"the weights in {model_dir} are others than those that {run.file} is about; evaluate again")
    raise InputError(f"{run.file} is about {evaluated}, not about {model_dir}; give the results of this model")


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
    check_model(run, args.model_dir)
    write_results(args.model_dir, model_results(run))
    print(f"Wrote {args.model_dir / CARD} and {args.model_dir / CARD_RESULTS}")


if __name__ == "__main__":
    run_main(main)
