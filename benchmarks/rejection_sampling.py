"""Training pairs for rejection-sampling fine-tuning: answers that a model samples itself and that verify right.

``python -m benchmarks.rejection_sampling --recipe R --model_name M --dataset_path train.parquet --out_file F`` samples
answers to questions of GRPO's training file, grades them with GRPO's reward function, and writes each different right
answer to a question once, as a row of verl's SFT dataset (Yuan et al. 2023, arXiv:2308.01825).
"""

import argparse
import importlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError, run_main
from recipes.evaluation.generation import GenerationOptions, Generator, Response
from recipes.tasks.registry import TASKS


def right_answers(recipe: str, rows: list[dict], responses: list[Response], threshold: float) -> list[dict]:
    """The rows ``{messages}`` of the different responses whose ``acc`` reaches ``threshold``; ``responses`` has the
    same number for each row, one row after the other."""
    compute_score = importlib.import_module(f"reward_fns.{recipe}").compute_score
    each = len(responses) // len(rows)

    def grade(row: dict, response: Response) -> bool:
        ground_truth = row["reward_model"]["ground_truth"]
        acc = compute_score(row["data_source"], response.text, ground_truth, row["extra_info"])["acc"]
        return response.finish_reason == "stop" and acc >= threshold

    asked = [row for row in rows for _ in range(each)]
    with ThreadPoolExecutor() as pool:
        graded = pool.map(grade, asked, responses)
        verdicts = list(track(graded, "Grading", len(asked), console=Console(stderr=True)))
    texts: dict[int, dict[str, None]] = {}  # by the number of the question, in the order of sampling
    for number, (response, right) in enumerate(zip(responses, verdicts, strict=True)):
        if right:
            texts.setdefault(number // each, {})[response.text] = None
    return [
        {"messages": [*rows[question]["prompt"], {"role": "assistant", "content": text}]}
        for question, answers in texts.items()
        for text in answers
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rejection_sampling",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option("--recipe", choices=tuple(TASKS), required=True, help="whose reward function grades")
    option("--model_name", required=True, help="Hugging Face folder or hub id")
    option("--dataset_path", type=Path, required=True, help="GRPO's training file")
    option("--out_file", type=Path, required=True, help="parquet file for verl's SFT dataset")
    option("--questions", type=int, default=1280, help="how many, drawn at random; all if the file has fewer")
    option("--samples", type=int, default=8, help="answers to a question")
    option("--max_response_length", type=int, default=512, help="in tokens")
    option("--threshold", type=float, default=1.0, help="the acc from which an answer counts as right")
    option("--seed", type=int, default=0, help="of the draw and of sampling")
    args = parser.parse_args(argv)
    rows = pq.read_table(args.dataset_path).to_pylist()
    rows = random.Random(args.seed).sample(rows, min(args.questions, len(rows)))
    generate = Generator(
        GenerationOptions(
            args.model_name, args.max_response_length, temperature=1.0, samples=args.samples, seed=args.seed
        )
    )
    pairs = right_answers(args.recipe, rows, generate([row["prompt"] for row in rows]), args.threshold)
    if not pairs:
        raise InputError(f"none of the {len(rows) * args.samples} answers is right; there is nothing to fine-tune on")
    with atomic_output(args.out_file) as partial:
        pq.write_table(pa.Table.from_pylist(pairs), partial)
    asked = len({str(pair["messages"][:-1]) for pair in pairs})
    print(f"{len(pairs)} different right answers to {asked} of {len(rows)} questions: {args.out_file}")


if __name__ == "__main__":
    run_main(main)
