"""Labels of a simulated teacher, who misreads questions in systematic ways, for a share of a ``label.json``.

It stands in for a language model or an annotator whose queries nobody has verified. ``data_prep/sql/misreadings.py``
says what it misreads; ``data_prep.ehrsql --teacher_labels`` takes the file that this program writes.
"""

import argparse
import json
import random
from collections import Counter
from pathlib import Path

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError, run_main
from data_prep.sql.misreadings import MISREADINGS, misread
from data_prep.sql.source import draw_share, read_labels, sql_skeleton
from reward_fns.sql.answers import ABSTAIN

SHARE, PROBABILITY = 0.4, 0.75

Taught = dict[str, tuple[str, list[str]]]  # question id -> the teacher's label, and the misreadings in it


def check_teacher(share: float, probability: float, prefix: str = "") -> None:
    """Raise an ``InputError``, which names the option ``--<prefix>share`` or so, for a bad number."""
    if not 0 < share <= 1:
        raise InputError(f"--{prefix}share is {share:g}; give a share above 0 and at most 1")
    if not 0 <= probability <= 1:
        raise InputError(f"--{prefix}probability is {probability:g}; give a probability from 0 to 1")


def teach(labels: dict[str, str], templates: dict[str, str], share: float, probability: float, seed: int) -> Taught:
    """The teacher's labels for a share of the questions, drawn evenly over templates, in the order of ``labels``.

    ``labels`` and ``templates`` have the same ids. Each misreading is made with ``probability`` where it changes the
    query; how a question is misread depends on its id and the seed only. ``ABSTAIN`` stays.
    """
    drawn = draw_share(templates, share, seed)
    return {
        id: misread(label, probability, random.Random(f"{seed} {id}")) for id, label in labels.items() if id in drawn
    }


def write_teacher(path: Path, taught: Taught) -> None:
    """Write the labels as a ``label.json``."""
    path.write_text(json.dumps({id: label for id, (label, _) in taught.items()}), encoding="utf-8")


def figures(taught: Taught, questions: int) -> str:
    """A line with the number of labels and of each misreading in them."""
    counts = Counter(name for _, names in taught.values() for name in names)
    changed = sum(bool(names) for _, names in taught.values())
    abstentions = sum(label == ABSTAIN for label, _ in taught.values())
    each = ", ".join(f"{misreading.name} {counts[misreading.name]:,}" for misreading in MISREADINGS)
    return (
        f"teacher: {len(taught):,} of {questions:,} questions, {abstentions:,} unanswerable, "
        f"{changed:,} queries misread: {each}"
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.make_teacher",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--labels", type=Path, required=True, help="label.json with the right SQL of train questions")
    parser.add_argument("--out_file", type=Path, required=True, help="file for the teacher's labels")
    parser.add_argument("--share", type=float, default=SHARE, help="share of the questions that the teacher labels")
    parser.add_argument("--probability", type=float, default=PROBABILITY, help="of a misreading where it applies")
    parser.add_argument("--seed", type=int, default=0, help="of the draw and the misreadings")
    args = parser.parse_args(argv)
    check_teacher(args.share, args.probability)
    labels = read_labels(args.labels)
    templates = {id: sql_skeleton(label) for id, label in labels.items()}
    taught = teach(labels, templates, args.share, args.probability, args.seed)
    if not taught:
        raise InputError(f"--share {args.share:g} of the {len(labels)} questions of {args.labels} is none; give more")
    with atomic_output(args.out_file) as partial:
        write_teacher(partial, taught)
    print(figures(taught, len(labels)))
    print(f"teacher's labels: {args.out_file}")


if __name__ == "__main__":
    run_main(main)
