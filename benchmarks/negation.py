"""Which findings of a sentence are affirmed, denied or left open: the ECG grader beside NegEx and ConText.

``negation_rows.json`` holds sentences with a marked finding and its state, labelled by hand before the grader's rules
were read. Its rows from ECG-Expert-QA are places in that data: without ``--data_dir`` they are left out.

medspaCy does not fit the pinned spaCy. It needs an environment of its own:

    python3.11 -m venv medspacy && medspacy/bin/pip install medspacy negspacy pyyaml
    medspacy/bin/python benchmarks/negation.py --readers negex negex_termination context context_phrases
    python -m benchmarks.negation --readers grader --data_dir ECG-Expert-QA
"""

import argparse
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import spacy
import yaml
from spacy.tokens import Doc, Span

ROWS = Path(__file__).with_name("negation_rows.json")
ONTOLOGY = Path(__file__).parent.parent / "reward_fns" / "ecg_ontology.yaml"
STATES = ("denied", "possible", "affirmed")


@dataclass(frozen=True)
class Row:
    """A sentence with the finding from ``start`` to ``end``."""

    text: str
    start: int
    end: int
    state: str

    @property
    def finding(self) -> str:
        return self.text[self.start : self.end]


Reader = Callable[[Row], str]


def read_rows(half: str, data_dir: Path | None) -> list[Row]:
    rows = []
    for row in json.loads(ROWS.read_text(encoding="utf-8")):
        if row["half"] != half or "file" in row and data_dir is None:
            continue
        if "file" in row:
            record = json.loads((data_dir / row["file"]).read_text(encoding="utf-8"))[row["row"]]
            text = (record.get("A") or record["Answer"])[slice(*row["sentence"])]
            start, end = (place - row["sentence"][0] for place in row["finding"])
        else:
            start, end = row["text"].index("["), row["text"].index("]") - 1
            text = row["text"].replace("[", "").replace("]", "")
        rows.append(Row(text, start, end, row["state"]))
    return rows


def grader() -> Reader:
    """The ECG grader's reading. Its facts are terms; here the marked finding is one."""
    from reward_fns.ecg_grader.clauses import with_clause_ends
    from reward_fns.ecg_grader.facts import WORD, Term
    from reward_fns.ecg_grader.negation import Negations
    from reward_fns.ecg_grader.reading import VERDICT, read
    from reward_fns.ecg_grader.text import Text, plain

    nlp = _sentences()
    negations = Negations(nlp)

    def words(text: str) -> list[str]:
        return re.findall(r"\w+", plain(Text(text).clean))

    def state(row: Row) -> str:
        doc = nlp(plain(with_clause_ends(VERDICT.sub("", Text(row.text).clean))))
        tokens = [token for token in doc if re.match(r"\w", token.text)]
        finding, before = words(row.finding), len(words(row.text[: row.start]))
        places = [
            place
            for place in range(len(tokens) - len(finding) + 1)
            if [token.text for token in tokens[place : place + len(finding)]] == finding
        ]
        place = min(places, key=lambda place: abs(place - before))
        span = Span(doc, tokens[place].i, tokens[place + len(finding) - 1].i + 1)
        doc.spans["facts"] = [span]
        negations.mark(doc)
        kinds = {fact.kind for fact in read(row.finding).facts if isinstance(fact, Term)} - {WORD}
        return negations.state(span, min(kinds, default=WORD))

    return state


def negex(**more: list[str]) -> Reader:
    """negspaCy with its own phrases for clinical notes, and ``more``."""
    from negspacy.negation import Negex  # noqa: F401 - registers the component
    from negspacy.termsets import termset

    phrases = termset("en_clinical")
    phrases.add_patterns(more)
    nlp = _sentences()
    mark = nlp.add_pipe("negex", config={"neg_termset": phrases.get_patterns()})

    def state(row: Row) -> str:
        doc = nlp.get_pipe("sentencizer")(nlp.make_doc(row.text))
        return "denied" if mark(_with_finding(doc, row)).ents[0]._.negex else "affirmed"

    return state


def negex_termination() -> Reader:
    """The same with the ends of a denial that the ontology lists."""
    return negex(termination=[*_ontology()["negation"]["termination"], ";", ":"])


def context(phrases: dict[str, list[tuple[str, str]]] | None = None) -> Reader:
    """medspaCy's ConText with its own rules, or with ``phrases``: category -> (phrase, direction)."""
    os.environ["LOGURU_LEVEL"] = "ERROR"  # its sentence splitter logs each token
    import medspacy
    from medspacy.context import ConText, ConTextRule

    nlp = medspacy.load(medspacy_enable=["medspacy_pyrush", "medspacy_context"])
    mark = nlp.get_pipe("medspacy_context")
    if phrases is not None:
        mark = ConText(nlp, name="phrases", rules=None)
        mark.add([ConTextRule(phrase, name, direction=to) for name, all_ in phrases.items() for phrase, to in all_])

    def state(row: Row) -> str:
        finding = mark(_with_finding(nlp.get_pipe("medspacy_pyrush")(nlp.make_doc(row.text)), row)).ents[0]._
        if finding.is_negated:
            return "denied"
        return "possible" if finding.is_uncertain or finding.is_hypothetical else "affirmed"

    return state


def context_phrases() -> Reader:
    """ConText with the phrases of the ontology."""
    denial, possibility = _ontology()["negation"], _ontology()["possibility"]
    opening = [*possibility["preceding"], *_pairs(possibility["modals"], possibility["open verbs"])]
    pseudo = [*denial["pseudo"], *possibility["pseudo"], *_pairs(denial["deniers"], denial["denials of denials"])]
    orders = denial["of orders"]
    return context(
        {
            "NEGATED_EXISTENCE": [
                *_directed("FORWARD", [*denial["preceding"], *orders["preceding"]]),
                *_directed("BACKWARD", [*denial["following"], *orders["following"]]),
            ],
            "POSSIBLE_EXISTENCE": [*_directed("FORWARD", opening), *_directed("BACKWARD", possibility["following"])],
            "PSEUDO": _directed("PSEUDO", pseudo),
            "TERMINATE": _directed("TERMINATE", [*denial["termination"], ";", ":"]),
        }
    )


READERS = {each.__name__: each for each in (grader, negex, negex_termination, context, context_phrases)}


def _ontology() -> dict:
    return yaml.safe_load(ONTOLOGY.read_text(encoding="utf-8"))


def _pairs(firsts: list[str], seconds: list[str]) -> list[str]:
    return [f"{first} {second}" for first in firsts for second in seconds]


def _directed(direction: str, phrases: list[str]) -> list[tuple[str, str]]:
    return [(phrase, direction) for phrase in phrases]


def _sentences() -> spacy.Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer", config={"punct_chars": [".", "!", "?"]})
    return nlp


def _with_finding(doc: Doc, row: Row) -> Doc:
    doc.ents = [doc.char_span(row.start, row.end, label="FINDING", alignment_mode="expand")]
    return doc


def share(right: Iterable[bool]) -> str:
    """In percent, with Wilson's interval of 95 %."""
    found = list(right)
    n, p, z = len(found), sum(found) / len(found), 1.96
    middle, half = p + z * z / 2 / n, z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    low, high = ((middle + side * half) / (1 + z * z / n) for side in (-1, 1))
    return f"{100 * p:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--readers", nargs="+", choices=READERS, default=[*READERS])
    parser.add_argument("--half", choices=["tuning", "test"], default="test")
    parser.add_argument("--data_dir", type=Path, help="folder of ECG-Expert-QA")
    args = parser.parse_args()
    if args.data_dir and not args.data_dir.is_dir():
        parser.error(f"no folder {args.data_dir}")
    rows = read_rows(args.half, args.data_dir)
    print(f"{len(rows)} findings")
    print(f"| reader | all, % | {', % | '.join(STATES)}, % | denied or not, % | sentences a second |")
    for name in args.readers:
        try:
            state = READERS[name]()
        except ImportError as error:
            print(f"{name}: left out, {error}")
            continue
        state(rows[0])
        start = time.perf_counter()
        said = [state(row) for row in rows]
        speed = len(rows) / (time.perf_counter() - start)
        pairs = [(row.state, each) for row, each in zip(rows, said, strict=True)]
        cells = [share(wanted == each for wanted, each in pairs)]
        cells += [share(each == which for wanted, each in pairs if wanted == which) for which in STATES]
        cells.append(share((wanted == "denied") == (each == "denied") for wanted, each in pairs))
        print(f"| {name} | {' | '.join(cells)} | {speed:.0f} |")


if __name__ == "__main__":
    main()
