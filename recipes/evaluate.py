"""Evaluates a model on EHRSQL questions with the grader of training.

``evaluate --model_name M --dataset_path test.parquet`` generates one response a question with vLLM, executes and
compares each query, prints the figures and writes ``<output_dir>/<model>/run_<timestamp>/``: ``results.json``
(``summary``, ``config`` and every sample under ``samples``) and ``evaluation.log`` (the same for reading).
"""

import argparse
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from dotenv import load_dotenv
from rich.console import Console
from rich.progress import track
from rich.table import Table

from data_prep.atomic import atomic_output
from data_prep.errors import InputError
from recipes.config import CONFIG_DIR
from recipes.evaluation_data import choose_rows, load_rows
from recipes.evaluation_metrics import Sample, graded, summarize
from recipes.generation import GenerationOptions, Generator, Response
from reward_fns.ehrsql import compute_score, grade
from reward_fns.sql_sandbox import DatabaseError, SandboxError

Generate = Callable[[Sequence[list[dict[str, str]]]], list[Response]]


def evaluate(args: argparse.Namespace, make_generator: Callable[[GenerationOptions], Generate] = Generator) -> Path:
    """Do what the command line asks for; return the folder that was written.

    Raises:
        InputError: an option, the dataset, a database, the model or the output folder is bad; nothing is written then.
    """
    if args.max_response_length < 1:
        raise InputError(f"--max_response_length is {args.max_response_length}; give at least 1 token")
    if args.seed < 0:
        raise InputError(f"--seed is {args.seed}; give 0 or more")
    if args.temperature < 0:
        raise InputError(f"--temperature is {args.temperature:g}; give 0 (greedy) or more")
    if not 0 < args.gpu_memory_utilization <= 1:
        raise InputError(f"--gpu_memory_utilization is {args.gpu_memory_utilization:g}; give a share in (0, 1]")
    rows = choose_rows(load_rows(args.dataset_path, args.db_path, args.prompt), args.num_samples, args.seed)
    folder = run_folder(args.output_dir, args.model_name, args.run_name)
    generate = make_generator(
        GenerationOptions(
            model_name=args.model_name,
            max_response_length=args.max_response_length,
            temperature=args.temperature,
            seed=args.seed,
            dtype=args.dtype,
            gpu_memory_utilization=args.gpu_memory_utilization,
        )
    )

    started = time.monotonic()
    responses = generate([row["prompt"] for row in rows])
    generated = time.monotonic()
    samples = grade_responses(rows, responses)
    if not graded(samples):
        raise InputError(f"every gold query of {args.dataset_path} failed; prepare it again on the right database")
    summary = summarize(samples, args.seed)
    config = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    config["generation_seconds"] = round(generated - started, 1)
    config["grading_seconds"] = round(time.monotonic() - generated, 1)
    write_results(folder, summary, config, samples)
    Console().print(summary_table(summary, f"{args.model_name} on {args.dataset_path.name}"))
    return folder


def run_folder(output_dir: Path, model_name: str, run_name: str | None) -> Path:
    """``<output_dir>/<model>/<run>``, which does not exist yet, in a folder that can be written to.

    ``<model>`` is the hub id, or the last two parts of the model folder's path, joined by ``__``.

    Raises:
        InputError: the run exists, its name is no plain name, or the folder cannot be written to.
    """
    run = run_name or f"run_{datetime.now():%Y%m%d_%H%M%S}"
    if not re.fullmatch(r"\w[\w.-]*", run):
        raise InputError(f"--run_name is {run!r}; use letters, digits, '_', '-' and '.'")
    path = Path(model_name)
    parts = path.resolve().parts[1:][-2:] if path.is_dir() else model_name.split("/")
    folder = output_dir / "__".join(parts) / run
    if folder.exists():
        raise InputError(f"{folder} exists already; choose another --run_name or remove it")
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {output_dir}: {error.strerror}; choose another --output_dir") from error
    if not os.access(output_dir, os.W_OK):
        raise InputError(f"cannot write to {output_dir}: permission denied; choose another --output_dir")
    return folder


def grade_responses(rows: Sequence[dict[str, Any]], responses: Sequence[Response]) -> list[Sample]:
    """Grade each response to its row, several at a time.

    Raises:
        InputError: a database became unreadable, or no SQL process can be started.
    """
    with ThreadPoolExecutor() as pool:
        try:
            samples = pool.map(_grade, rows, responses)
            return list(track(samples, "Grading", len(rows), console=Console(stderr=True)))
        except (DatabaseError, SandboxError) as error:
            pool.shutdown(cancel_futures=True)
            raise InputError(f"cannot grade: {error}") from error


def _grade(row: dict[str, Any], response: Response) -> Sample:
    info, ground_truth = row["extra_info"], row["reward_model"]["ground_truth"]
    result = grade(response.text, ground_truth, info["db_path"])
    # Both execute the query, the second time from the sandbox's cache.
    score = compute_score(row["data_source"], response.text, ground_truth, info)["score"]
    no_query = "" if result.abstained else "no query in the response"
    return Sample(
        id=info["id"],
        question=info["question"],
        template=info["template"],
        seen_template=info["seen_template"],
        answerable=info["answerable"],
        gold_sql=info["gold_sql"],
        ground_truth=ground_truth,
        response=response.text,
        response_tokens=response.tokens,
        finish_reason=response.finish_reason,
        sql=result.extraction.sql,
        score=score,
        acc=result.acc,
        executed=result.executed,
        reads_table=result.executed and result.execution.reads_table,
        abstained=result.abstained,
        timed_out=result.timed_out,
        format_ok=result.extraction.format_ok,
        error=result.execution.error if result.execution else no_query,
    )


def write_results(folder: Path, summary: dict[str, Any], config: dict[str, Any], samples: Sequence[Sample]) -> None:
    """Write ``results.json`` and ``evaluation.log`` to the new ``folder``: both or none."""
    results = {"summary": summary, "config": config, "samples": [asdict(sample) for sample in samples]}
    with atomic_output(folder, "results.json") as partial:
        partial.mkdir()
        (partial / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        with (partial / "evaluation.log").open("w", encoding="utf-8", errors="backslashreplace") as log:
            for name, value in config.items():
                print(f"{name}: {value}", file=log)
            Console(file=log, width=100).print(summary_table(summary, "Summary"))
            for sample in samples:
                print(f"\n{_outcome(sample)}  {sample.id}  {sample.question}", file=log)
                print(f"  response: {sample.response}", file=log)
                print(f"  gold:     {sample.gold_sql}", file=log)
                if sample.error:
                    print(f"  error:    {sample.error}", file=log)


def _outcome(sample: Sample) -> str:
    if sample.acc:
        return "RIGHT    "
    return "ABSTAINED" if sample.abstained else "WRONG    "


def summary_table(summary: dict[str, Any], title: str) -> Table:
    """The figures of ``summarize`` as a table."""
    table = Table(title=title)
    table.add_column("")
    for column in ("value", "95 % interval", "questions"):
        table.add_column(column, justify="right")
    for name, group in summary["execution_accuracy"].items():
        interval = f"{group['low']:.1f} to {group['high']:.1f}" if group["questions"] else ""
        table.add_row(f"accuracy, {name}", _percent(group["percent"]), interval, f"{group['questions']:,}")
    answerable, questions = f"{summary['answerable']:,}", f"{summary['questions']:,}"
    table.add_row("accuracy of SELECT 1", _percent(summary["select_1_percent"]), "", answerable)
    table.add_row("right by a constant", str(summary["right_constants"]), "", questions, end_section=True)
    for name, value in summary["reliability"].items():
        table.add_row(name, f"{value:.1f}", "", questions)
    abstention = summary["abstention"]
    table.add_section()
    table.add_row("executable, of those not abstained", _percent(summary["executable_percent"]), "", "")
    table.add_row("abstained", _percent(abstention["percent"]), "", questions)
    table.add_row("abstention precision", _percent(abstention["precision_percent"]), "", "")
    table.add_row("abstention recall", _percent(abstention["recall_percent"]), "", f"{summary['unanswerable']:,}")
    table.add_row("timed out", str(summary["timed_out"]), "", questions)
    table.add_row("accepted format", _percent(summary["format_ok_percent"]), "", questions)
    table.add_row("response tokens, mean", f"{summary['response_tokens_mean']:.1f}", "", questions)
    table.add_row("cut off at the length limit", _percent(summary["cut_off_percent"]), "", questions)
    if summary["gold_failed"]:
        table.add_row("gold failed, not counted above", "", "", str(summary["gold_failed"]))
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} %"


def parser() -> argparse.ArgumentParser:
    """The command line of ``evaluate``."""
    parser = argparse.ArgumentParser(
        prog="evaluate",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model_name", required=True, help="Hugging Face folder or hub id")
    parser.add_argument(
        "--dataset_path", type=Path, required=True, help="parquet file of data_prep.ehrsql, or EHRSQL's data.json"
    )
    parser.add_argument("--db_path", type=Path, help="SQLite database, if not the one that the parquet file names")
    parser.add_argument("--num_samples", type=int, help="evaluate on that many questions, drawn at random, not on all")
    parser.add_argument("--prompt", default="question_only", help="template in configs/prompts, for data.json")
    parser.add_argument("--output_dir", type=Path, default=Path("results"), help="where <model>/<run> is made")
    parser.add_argument("--run_name", help="name of the run's folder, if not run_<timestamp>")
    parser.add_argument("--max_response_length", type=int, default=1024, help="in tokens")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="as in training rollouts")
    parser.add_argument("--gpu_memory_utilization", type=float, default=0.9, help="share of the GPU that vLLM takes")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of questions, of sampling and the intervals")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    load_dotenv(CONFIG_DIR.parent / ".env")
    folder = evaluate(args)
    print(f"Wrote {folder}/results.json and {folder}/evaluation.log")


if __name__ == "__main__":
    main()
