"""Questions with gold SQL over an EHRSQL database, in EHRSQL-2024's JSON format.

Templates come from ``demo/templates.yaml``, values from the database. What is kept: gold that executes and reads a
table, with an answer that is neither empty nor NULL and that no more than 8 % of a split's answerable questions share;
questions whose text and whose gold occur in one split only (in valid and test once). Valid and test hold templates
that train lacks. ``train/teacher.json`` holds the labels of a simulated teacher for a share of the train questions.
"""

import argparse
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from data_prep.common.errors import InputError, run_main
from data_prep.demo.output import NO_PATIENTS, demo_output
from data_prep.demo.provenance import holds_demo_patients
from data_prep.demo.sql_sampler import Draw, Sampler, Template, answerable_templates, unanswerable_templates
from data_prep.make_teacher import PROBABILITY, SHARE, Taught, check_teacher, teach, write_teacher
from data_prep.make_teacher import figures as teacher_figures
from reward_fns.sql.answers import ABSTAIN, COMPARED_ROWS, canonical_answer
from reward_fns.sql.sandbox import SqlSandbox

UNANSWERABLE_SHARE = 0.1
UNSEEN_SHARE = 0.2  # of the questions of valid and test
MOST_FREQUENT_ANSWER = 0.08  # of the answerable questions of a split
ATTEMPTS = 200  # draws in a row that a template may fail before it counts as used up
FROM_A_DATABASE = (
    "Questions that a program has made from a database. Treat them like the database: they name its patients."
)
YES, NO = canonical_answer([(1,)]), canonical_answer([(0,)])


@dataclass(frozen=True)
class Item:
    """A question as written to the files; ``answer`` is canonical JSON, or ``ABSTAIN``."""

    template: Template
    draw: Draw
    answer: str

    @property
    def id(self) -> str:
        return hashlib.sha256(self.draw.question.encode()).hexdigest()[:24]

    @property
    def label(self) -> str:
        return self.draw.sql or ABSTAIN


class Generator:
    """Draws splits that share neither a question nor a gold query."""

    def __init__(self, db: Path, sandbox: SqlSandbox, seed: int) -> None:
        self.db = db
        self.sandbox = sandbox
        self.rng = np.random.default_rng(seed)
        self.sampler = Sampler(db, self.rng)
        self.questions: set[str] = set()
        self.split_of_sql: dict[str, str] = {}

    def split(self, name: str, size: int, progress: Progress) -> list[Item]:
        """Return ``size`` questions in random order.

        Raises:
            InputError: the database is too small for so many different questions.
        """
        task = progress.add_task(name, total=size)
        unseen_share = 0.0 if name == "train" else UNSEEN_SHARE
        unanswerable = round(size * UNANSWERABLE_SHARE)
        answers: Counter[str] = Counter()
        limit = max(1, int(MOST_FREQUENT_ANSWER * (size - unanswerable)))
        items: list[Item] = []
        for templates, count in (
            (answerable_templates(), size - unanswerable),
            (unanswerable_templates(), unanswerable),
        ):
            unseen_count = round(count * unseen_share)
            for unseen, wanted in ((True, unseen_count), (False, count - unseen_count)):
                pool = [template for template in templates if template.unseen == unseen for _ in range(template.weight)]
                for _ in range(wanted):
                    items.append(self._next(name, pool, answers, limit))
                    progress.advance(task)
        return [items[index] for index in self.rng.permutation(len(items))]

    def _next(self, split: str, pool: list[Template], answers: Counter, limit: int) -> Item:
        """One new item from a random template of ``pool``; used-up templates are removed from it."""
        while pool:
            template = pool[self.rng.integers(len(pool))]
            for _ in range(ATTEMPTS):
                if item := self._try(split, template, answers, limit):
                    self.questions.add(item.draw.question)
                    if item.draw.sql:
                        self.split_of_sql[item.draw.sql] = split
                        answers[item.answer] += 1
                    return item
            pool[:] = [other for other in pool if other is not template]
        raise InputError(f"the database is too small for so many {split} questions; ask for fewer or add patients")

    def _try(self, split: str, template: Template, answers: Counter, limit: int) -> Item | None:
        wanted = bool(self.rng.integers(2)) if template.yes_no else None
        draw = self.sampler.draw(template, wanted)
        if draw.question in self.questions:
            return None
        if not template.sql:
            return Item(template, draw, ABSTAIN)
        owner = self.split_of_sql.get(draw.sql)
        if owner and (owner != split or split != "train"):
            return None
        gold = self.sandbox.execute(self.db, draw.sql)
        if gold.status != "ok":
            raise InputError(
                f"{self.db} cannot answer {draw.sql} ({gold.error}); build one with data_prep.build_ehr_db"
            )
        if not gold.reads_table or not 0 < gold.rows <= COMPARED_ROWS or '"None"' in gold.answer:
            return None
        if answers[gold.answer] >= limit or template.yes_no and gold.answer != (YES if wanted else NO):
            return None
        return Item(template, draw, gold.answer)


def write_split(folder: Path, name: str, items: list[Item]) -> None:
    """Write ``data.json``, ``label.json``, ``answer.json`` and ``annotated.json`` to ``folder``."""
    folder.mkdir()
    files = {
        "data": {
            "version": f"demo_{name}",
            "data": [{"id": item.id, "question": item.draw.question} for item in items],
        },
        "label": {item.id: item.label for item in items},
        "answer": {item.id: ABSTAIN if item.answer == ABSTAIN else str(json.loads(item.answer)) for item in items},
        "annotated": [
            {
                "id": item.id,
                "question": item.draw.question,
                "query": item.label,
                "template": item.template.questions[0] if item.draw.sql else "-",
                "val_dict": item.draw.val_dict if item.draw.sql else "-",
            }
            for item in items
        ],
    }
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")


def figures(name: str, items: list[Item], train_templates: set[str]) -> str:
    """One line on a split: sizes, templates, the best constant answer, lengths."""
    gold = [item for item in items if item.draw.sql]
    counts = Counter(item.answer for item in gold)
    ((best, times),) = counts.most_common(1)
    unseen = sum(item.template.name not in train_templates for item in gold)
    words = [
        np.mean([len(text.split()) for text in texts])
        for texts in ([item.draw.question for item in items], [item.draw.sql for item in gold])
    ]
    return (
        f"{name}: {len(items)} questions, {len(items) - len(gold)} unanswerable, "
        f"{len({item.template.name for item in gold})} templates, {unseen} questions of templates not in train; "
        f"best constant answer {best} {times / len(gold):.1%}, SELECT 1 {counts[YES] / len(gold):.1%}; "
        f"words: question {words[0]:.1f}, SQL {words[1]:.1f}"
    )


def teach_items(items: list[Item], share: float, probability: float, seed: int) -> Taught:
    """The simulated teacher's labels for a share of ``items``, drawn evenly over their templates."""
    labels = {item.id: item.label for item in items}
    templates = {item.id: item.template.name for item in items}
    return teach(labels, templates, share, probability, seed)


def make_questions(
    db: str | Path,
    out_dir: str | Path,
    sizes: dict[str, int],
    seed: int = 0,
    teacher_share: float = SHARE,
    teacher_probability: float = PROBABILITY,
) -> tuple[dict[str, list[Item]], Taught]:
    """Write train, valid and test, of the given ``sizes``, and the teacher's labels to ``out_dir``; return them.

    Raises:
        InputError: a size is not positive, ``db`` is missing, unreadable, of another schema or too small, or the
            teacher's share or probability is no such thing.
    """
    for split, size in sizes.items():
        if size < 1:
            raise InputError(f"--{split} is {size}; it must be at least 1")
    if seed < 0:
        raise InputError(f"--seed is {seed}; it must not be negative")
    check_teacher(teacher_share, teacher_probability, prefix="teacher_")
    if not Path(db).is_file():
        raise InputError(f"no database at {db}; build one with data_prep.build_ehr_db")
    progress = Progress(console=Console(stderr=True))
    content = NO_PATIENTS if holds_demo_patients(Path(db)) else FROM_A_DATABASE
    with demo_output(out_dir, "questions", content) as folder, SqlSandbox() as sandbox, progress:
        generator = Generator(Path(db), sandbox, seed)
        # Test and valid first: what they draw, train may not use.
        splits = {name: generator.split(name, sizes[name], progress) for name in ("test", "valid", "train")}
        for name in sizes:
            write_split(folder / name, name, splits[name])
        taught = teach_items(splits["train"], teacher_share, teacher_probability, seed)
        write_teacher(folder / "train" / "teacher.json", taught)
    return {name: splits[name] for name in sizes}, taught


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.make_demo_questions",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--db", required=True, help="SQLite database made by data_prep.build_ehr_db")
    parser.add_argument("--out_dir", required=True, help="folder for train, valid and test")
    parser.add_argument("--train", type=int, default=4000, help="number of training questions")
    parser.add_argument("--valid", type=int, default=400, help="number of validation questions")
    parser.add_argument("--test", type=int, default=1200, help="number of test questions")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator")
    parser.add_argument("--teacher_share", type=float, default=SHARE, help="of the train questions that it labels")
    parser.add_argument(
        "--teacher_probability", type=float, default=PROBABILITY, help="of the teacher's misreading where it applies"
    )
    args = parser.parse_args(argv)
    sizes = {"train": args.train, "valid": args.valid, "test": args.test}
    splits, taught = make_questions(
        args.db, args.out_dir, sizes, args.seed, args.teacher_share, args.teacher_probability
    )
    train_templates = {item.template.name for item in splits["train"]}
    for name, items in splits.items():
        print(figures(name, items, train_templates))
    print(teacher_figures(taught, len(splits["train"])))
    print(f"questions: {args.out_dir}")


if __name__ == "__main__":
    run_main(main)
