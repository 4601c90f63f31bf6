"""How the ECG grader scores wrong and right variants of its own reference answers, kind by kind.

``ecg_variants.py`` makes the variants and knows nothing of the grader: a wrong variant should score under 0.3, a right
one over 0.6. All questions of ECG-Expert-QA in the folder are taken, or those of the demo.

    python -m benchmarks.ecg_adversary --data_dir ../shared/data/ecg_expert_qa
"""

import argparse
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from benchmarks.ecg_variants import RIGHT, WRONG, Asked, Variant, variants
from data_prep.common.errors import InputError, run_main
from data_prep.ecg.source import SCHEMAS, read_file
from reward_fns.ecg import compute_score
from reward_fns.ecg_grader.reference import make_reference

LOW = 0.3  # a wrong answer should score less
HIGH = 0.6  # a right answer should score more


@dataclass(frozen=True)
class Graded:
    """A variant and the grader's score of it."""

    variant: Variant
    score: float

    @property
    def well(self) -> bool:
        return self.score > HIGH if self.variant.right else self.score < LOW


def read_questions(data_dir: Path) -> list[Asked]:
    """The questions of all files of ECG-Expert-QA in ``data_dir`` whose answers are sentences, each once.

    Raises:
        InputError: there is none of these files, or one of them is damaged.
    """
    schemas = [schema for schema in SCHEMAS if schema.kind == "answer" and (data_dir / schema.file).is_file()]
    if not schemas:
        raise InputError(f"{data_dir} holds no file of ECG-Expert-QA; name its folder with --data_dir")
    return list(
        dict.fromkeys(
            Asked(record.turns[number].question, record.turns[number].answer)
            for schema in schemas
            for record in read_file(data_dir / schema.file, schema)[0]
            for number in record.asked
        )
    )


def make_variants(questions: list[Asked], seed: int = 0) -> list[Variant]:
    return [variant for asked in questions for variant in variants(asked, seed)]


def sample(made: list[Variant], limit: int, seed: int = 0) -> list[Variant]:
    """Of each kind at most ``limit``, drawn at random."""
    draw = random.Random(seed)
    of_kind = [[variant for variant in made if variant.kind == kind] for kind in (*WRONG, *RIGHT)]
    return [variant for found in of_kind for variant in draw.sample(found, min(limit, len(found)))]


def grade_variants(drawn: Iterable[Variant]) -> list[Graded]:
    """Each variant's score, as a trainer asks for it."""

    @cache
    def truth(asked: Asked) -> str:
        return make_reference(asked.question, asked.reference)

    return [Graded(variant, compute_score("ecg", variant.text, truth(variant.asked))["score"]) for variant in drawn]


def unchanged(made: list[Variant]) -> list[Variant]:
    """The references of ``made`` themselves: where one of them scores badly, its rewrites do as well."""
    return [Variant("unchanged", True, asked, asked.reference) for asked in dict.fromkeys(one.asked for one in made)]


def share(graded: list[Graded]) -> float:
    """How much of ``graded`` is scored well; 1 of nothing."""
    return sum(one.well for one in graded) / len(graded) if graded else 1.0


def table(graded: list[Graded]) -> list[str]:
    """A line a kind, and one for all wrong and all right variants."""
    lines = []
    for right, kinds, target in ((False, WRONG, f"under {LOW}"), (True, RIGHT, f"over {HIGH}")):
        side = [one for one in graded if one.variant.right == right]
        lines.append(f"{'right rewrites' if right else 'wrong variants':20} {'number':>7} {target:>11}")
        for kind in kinds:
            if found := [one for one in side if one.variant.kind == kind]:
                lines.append(f"  {kind:18} {len(found):7} {share(found):11.1%}")
        lines.append(f"  {'all':18} {len(side):7} {share(side):11.1%}")
    return lines


def shortfalls(graded: list[Graded], number: int) -> list[str]:
    """At most ``number`` variants a kind that are scored badly."""
    lines = []
    for kind in (*WRONG, *RIGHT):
        for one in [one for one in graded if one.variant.kind == kind and not one.well][:number]:
            asked = one.variant.asked
            side = "right" if one.variant.right else "wrong"
            lines += [f"{side}, {kind}: {one.score:.2f}", f"  question:  {asked.question}"]
            lines += [f"  reference: {asked.reference}", f"  variant:   {one.variant.text!r}"]
    return lines


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ecg_adversary", description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True, help="ECG-Expert-QA, or what make_demo_ecg wrote")
    parser.add_argument("--limit", type=int, help="at most so many variants of each kind; all of them if left out")
    parser.add_argument("--seed", type=int, default=0, help="seed of the variants and of the choice among them")
    parser.add_argument("--show", type=int, default=0, help="print so many variants of each kind that fall short")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # the texts are graded one by one; more threads would wait for each other
    questions = read_questions(args.data_dir)
    made = make_variants(questions, args.seed)
    with_variants = len({variant.asked for variant in made})
    print(f"{len(questions)} questions, {len(made)} variants of {with_variants} of them")
    drawn = made if args.limit is None else sample(made, args.limit, args.seed)
    graded = grade_variants(drawn)
    print("\n".join([*table(graded), *shortfalls(graded, args.show)]))
    references = grade_variants(unchanged(drawn))
    print(f"the {len(references)} references themselves: {share(references):.1%} over {HIGH}")


if __name__ == "__main__":
    run_main(main)
