"""The summary of a run alone: what ``recipes.compare`` writes with ``--metrics``, without the answers side by side.

``python -m recipes.summary --runs start=RESULTS grpo=RESULTS --metrics grpo.jsonl --out_dir D`` is an older name for
``python -m recipes.compare start=RESULTS grpo=RESULTS --metrics grpo.jsonl --out_dir D``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from data_prep.common.errors import InputError, run_main
from recipes.report.summary import write_summary


def parse_runs(texts: Sequence[str]) -> dict[str, Path]:
    """``["start=A", "grpo=B"]`` as label -> path.

    Raises:
        InputError: a text has no label or no path, or a label occurs twice.
    """
    runs = {}
    for text in texts:
        label, _, path = text.partition("=")
        if not label or not path:
            raise InputError(f"--runs {text}: write LABEL=PATH, e.g. start=results/model/run_1")
        if label in runs:
            raise InputError(f"--runs names {label} twice; give each run its own label")
        runs[label] = Path(path)
    return runs


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.summary", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", nargs="+", required=True, metavar="LABEL=PATH", help="the first is compared with")
    parser.add_argument(
        "--metrics", nargs="+", type=Path, required=True, help="jsonl files of verl's file logger, or their folder"
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for the summary, made if need be")
    args = parser.parse_args(argv)
    page = write_summary(parse_runs(args.runs), args.metrics, args.out_dir, Console(), {})
    print(f"Wrote {page}, summary.md, summary.json and charts beside it; they hold questions, treat them like the data")


if __name__ == "__main__":
    run_main(main)
