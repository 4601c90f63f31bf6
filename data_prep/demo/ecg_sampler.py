"""Questions on electrocardiography: facts in many phrasings, and synthetic ECGs judged by declared limits.

Facts stand in ``ecg_facts.yaml``, everything else in ``ecg_templates.yaml``. A question belongs to a family
of one kind and polarity: within a family as many answers begin with "Yes" as with "No".
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path
from typing import TypeVar

import numpy as np
import yaml

YES_NO_SHARE = 0.4  # of the questions on facts
FIRST_SUBJECT = 90_000_001  # MIMIC-IV's subject ids lie between 10,000,000 and 19,999,999
ECG_KINDS = ("diagnosis", "finding", "normal", "meaning")
T = TypeVar("T")


@dataclass(frozen=True)
class Fact:
    """One atomic fact; ``wrong`` values of the same attribute are certainly not true of the entity."""

    attribute: str
    entity: str
    value: str
    wrong: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str]:
        return self.attribute, self.entity


@dataclass(frozen=True)
class Question:
    """A question with its answer: ``form`` with ``value`` in its slot ``{value}``, if it has one.

    ``wrong`` values in that slot are certainly not true. ``disease`` is "" except in complex diagnosis, ``fact`` is a
    fact's key.
    """

    text: str
    form: str
    family: str
    value: str = ""
    wrong: tuple[str, ...] = ()
    fact: tuple[str, str] | None = None
    disease: str = ""

    @property
    def answer(self) -> str:
        return sentence(self.form.format(value=self.value))


@dataclass(frozen=True)
class Stated:
    """A statement on a patient: ``form``, ``value`` and ``wrong`` as in ``Question``, without a full stop."""

    form: str
    value: str
    wrong: tuple[str, ...]

    def answering(self, text: str, family: str, verdict: str) -> Question:
        """The question ``text``, answered with this after ``verdict``: "yes, ", "no, " or ""."""
        return Question(text, f"{verdict}{self.form}.", family, self.value, self.wrong)


@dataclass(frozen=True)
class Patient:
    """One synthetic ECG: ``values`` by measurement, in the units of the templates."""

    subject_id: int
    person: str
    values: dict[str, int]

    @property
    def finding(self) -> str:
        """What is abnormal by the limits of the templates, "" if nothing is."""
        found = [finding_of(name, value) for name, value in self.values.items()]
        return next(filter(None, found), "")

    @property
    def listed(self) -> str:
        """All measurements in one phrase."""
        return ", ".join(f"{measurements()[name]['name']} {with_unit(name, self.values[name])}" for name in self.values)


class TooFew(Exception):
    """The templates make fewer different questions than were asked for; the message says how many."""


@cache
def facts_file() -> dict:
    return _yaml("ecg_facts.yaml")


@cache
def templates_file() -> dict:
    return _yaml("ecg_templates.yaml")


def measurements() -> dict[str, dict]:
    return templates_file()["measurements"]


@cache
def facts() -> list[Fact]:
    """All facts, each with the values that a question with the answer "No" may state."""
    found = []
    for attribute, entry in facts_file().items():
        for entity, value in entry["values"].items():
            close = entry.get("close", {}).get(entity, [])
            wrong = dict.fromkeys(other for other in entry["values"].values() if other != value and other not in close)
            found.append(Fact(attribute, entity, value, tuple(wrong)))
    return found


# Facts


def knowledge_questions(file: str, count: int, rng: np.random.Generator) -> list[Question]:
    """``count`` open and yes/no questions on the facts of ``file`` ("EBK" or "CK"), in random order.

    Raises:
        TooFew: there are not so many.
    """
    chosen = [fact for fact in facts() if templates_file()["attributes"][fact.attribute]["file"] == file]
    pairs = [pair for fact in chosen for pair in _yes_no_pairs(fact, rng)]
    asked = [question for fact in chosen for question in _open_questions(fact, rng)]
    pair_count = round(count * YES_NO_SHARE / 2)
    yes_no = _take(pairs, pair_count, rng, lambda pair: pair[0].fact)
    return shuffled([*_flat(yes_no), *_take(asked, count - 2 * pair_count, rng, lambda item: item.fact)], rng)


def rights_questions(count: int, rng: np.random.Generator) -> list[Question]:
    """``count`` questions on the rights of patients, half of them to be answered with "Yes", in random order.

    Raises:
        TooFew: there are not so many.
    """
    pairs = []
    for speaker in templates_file()["rights"]:
        yes, no = (_in_turns(_rights(speaker, verdict), rng, lambda item: item.fact) for verdict in ("yes", "no"))
        pairs += zip(yes, no, strict=True)
    return shuffled(_flat(_take(pairs, count // 2, rng, lambda pair: pair[0].fact)), rng)


def _rights(speaker: str, verdict: str) -> list[Question]:
    """All questions with the answer ``verdict`` ("yes" or "no") on what ``speaker`` may do."""
    entry = templates_file()["rights"][speaker]
    return [
        Question(sentence(text.format(act=act)), f"{verdict}, {reason}.", f"rights {speaker}", fact=(speaker, act))
        for act, reason in entry[verdict].items()
        for text in entry["questions"]
    ]


def complex_questions(count: int, rng: np.random.Generator) -> list[Question]:
    """``count`` questions on an infarction with a second disorder, evenly over the diseases, in random order.

    Raises:
        TooFew: there are not so many.
    """
    texts = templates_file()["complex"]
    questions = []
    for disease, wall, disorder in _complex_cases():
        for part, fact in (("leads", wall), ("sign", disorder)):
            for text in texts[part]:
                question = sentence(text.format(disease=disease))
                form = _statement(fact, rng.integers(2))
                family = f"complex {part}"
                questions.append(Question(question, form, family, fact.value, fact.wrong, fact.key, sentence(disease)))
    return _take(questions, count, rng, lambda item: item.disease)


def _complex_cases() -> list[tuple[str, Fact, Fact]]:
    """Each disease with the fact on the leads of its infarction and the fact on the sign of its other disorder."""
    texts = templates_file()["complex"]
    by_key = {fact.key: fact for fact in facts()}
    return [
        (
            texts["disease"].format(infarction=infarction, disorder=disorder),
            by_key["wall_leads", wall],
            by_key[attribute, entity],
        )
        for wall, infarction in texts["infarctions"].items()
        for attribute, disorders in texts["disorders"].items()
        for entity, disorder in disorders.items()
    ]


def _open_questions(fact: Fact, rng: np.random.Generator) -> list[Question]:
    """One question for each phrasing of the fact's attribute."""
    return [
        Question(
            sentence(text.format(entity=fact.entity)),
            _statement(fact, rng.integers(2)),
            f"{fact.attribute} open",
            fact.value,
            fact.wrong,
            fact.key,
        )
        for text in templates_file()["attributes"][fact.attribute]["questions"]
    ]


def _yes_no_pairs(fact: Fact, rng: np.random.Generator) -> list[tuple[Question, Question]]:
    """For each yes/no phrasing the question with the right value and with a wrong one."""
    pairs = []
    for text in templates_file()["attributes"][fact.attribute]["yes_no"]:
        stated = {"yes": fact.value, "no": fact.wrong[rng.integers(len(fact.wrong))]}
        yes, no = (
            Question(
                sentence(text.format(entity=fact.entity, value=value)),
                f"{verdict}, {_statement(fact, 0)}",
                f"{fact.attribute} yes/no",
                fact.value,
                fact.wrong,
                fact.key,
            )
            for verdict, value in stated.items()
        )
        pairs.append((yes, no))
    return pairs


def _statement(fact: Fact, form: int) -> str:
    """The statement of a fact with the slot ``{value}``."""
    texts = templates_file()["attributes"][fact.attribute]["statements"]
    return texts[form].format(entity=fact.entity, value="{value}") + "."


# Patients


def level(name: str, value: int) -> str:
    """The rule for a measurement: "low" below its limits, "high" above them, "normal" otherwise."""
    low, high = measurements()[name]["limits"]
    return "low" if value < low else "high" if value > high else "normal"


def finding_of(name: str, value: int) -> str:
    """What a value means, "" if it is normal."""
    return measurements()[name]["finding"].get(level(name, value), "")


def with_unit(name: str, value: int) -> str:
    return f"{value} {measurements()[name]['unit']}"


def abnormal_levels() -> list[tuple[str, str]]:
    """Each measurement with each way in which it can be abnormal."""
    return [(name, abnormal) for name, entry in measurements().items() for abnormal in entry["finding"]]


def draw_patient(subject_id: int, rng: np.random.Generator, abnormal: tuple[str, str] | None = None) -> Patient:
    """A patient whose measurements are normal except for the one that ``abnormal`` names with its level."""
    levels = dict.fromkeys(measurements(), "normal") | dict([abnormal] if abnormal else [])
    values = {
        name: int(rng.integers(*measurements()[name]["draw"][wanted], endpoint=True)) for name, wanted in levels.items()
    }
    person = f"a {one_of(['man', 'woman'], rng)} of {rng.integers(22, 90)}"
    return Patient(subject_id, person, values)


def ecg_question(kind: str, yes: bool, subject_id: int, rng: np.random.Generator) -> tuple[Patient, Question]:
    """A question of one of ``ECG_KINDS`` on a new patient.

    ``yes`` decides the answer to the yes/no kinds "finding" and "normal", and for "meaning" whether the value is
    normal. In "diagnosis" a normal ECG is as frequent as each of the findings.
    """
    name, abnormal = asked = one_of(abnormal_levels(), rng)
    finding = measurements()[name]["finding"][abnormal]
    others = [None, *(other for other in abnormal_levels() if other != asked)]
    state = {
        "diagnosis": one_of([None, *abnormal_levels()], rng),
        "finding": asked if yes else one_of(others, rng),
        "normal": None if yes else asked,
        "meaning": None if yes else asked,
    }[kind]
    patient = draw_patient(subject_id, rng, state)
    verdict = {"finding": "yes, " if yes else "no, ", "normal": "yes, " if yes else "no, "}.get(kind, "")
    stated = overall(patient) if kind in ("diagnosis", "finding") else value_meaning(name, patient.values[name])
    text = one_of(templates_file()["ecg_questions"][kind], rng)
    slots = measurement_slots(patient, name) | {"finding": finding}
    return patient, stated.answering(sentence(text.format(**slots)), f"ECG {kind}", verdict)


def dialogue(yes: bool, turns: int, subject_id: int, rng: np.random.Generator) -> tuple[str, list[Question]]:
    """A new patient's context and ``turns`` questions about it; ``yes`` makes the ECG normal."""
    name, abnormal = one_of(abnormal_levels(), rng)
    patient = draw_patient(subject_id, rng, None if yes else (name, abnormal))
    texts, forms = templates_file()["dialogue"], templates_file()["patient_answers"]
    slots = measurement_slots(patient, name)
    entry, shown = measurements()[name], overall(patient)
    own_value = forms["own_value"].format(name=entry["name"], value="{value} " + entry["unit"])
    limits = forms["limits"].format(name=entry["name"], range="{value}")
    answers = {
        "all_normal": shown,
        "value": Stated(own_value, str(patient.values[name]), other_values(name, patient.values[name])),
        "limits": Stated(limits, entry["range"], tuple(entry["wrong_ranges"])),
        "diagnosis": shown,
    }
    verdicts = {"all_normal": "yes, " if yes else "no, "}
    first, *later = texts["turns"]
    chosen = sorted(rng.choice(len(later), turns - 1, replace=False))
    questions = [
        answers[turn].answering(
            sentence(one_of(texts["turns"][turn], rng).format(**slots)), f"turn {turn}", verdicts.get(turn, "")
        )
        for turn in (first, *(later[index] for index in chosen))
    ]
    return sentence(texts["context"].format(complaint=one_of(texts["complaints"], rng), **slots)), questions


def overall(patient: Patient) -> Stated:
    """The statement on the whole ECG."""
    forms = templates_file()["patient_answers"]
    if patient.finding:
        others = tuple(finding for finding in findings() if finding != patient.finding)
        return Stated(forms["abnormal"].format(finding="{value}"), patient.finding, others)
    return Stated(forms["all_normal"].format(normal="{value}"), "normal", cases(findings()))


def value_meaning(name: str, value: int) -> Stated:
    """The statement on one measurement."""
    forms, finding = templates_file()["patient_answers"], finding_of(name, value)
    slots = {"name": measurements()[name]["name"], "value": with_unit(name, value)}
    if finding:
        others = tuple(other for other in findings() if other != finding)
        return Stated(forms["value_abnormal"].format(**slots, finding="{value}"), finding, others)
    own = measurements()[name]["finding"].values()
    return Stated(forms["value_normal"].format(**slots, normal="{value}"), "normal", cases(own))


def findings() -> list[str]:
    """All abnormal findings."""
    return [measurements()[name]["finding"][abnormal] for name, abnormal in abnormal_levels()]


def cases(found: Iterable[str]) -> tuple[str, ...]:
    """What to say in place of "normal" for each finding."""
    return tuple(templates_file()["patient_answers"]["case"].format(finding=finding) for finding in found)


def other_values(name: str, value: int) -> tuple[str, ...]:
    """Values of a measurement that are clearly another level than ``value``: the ends of what is drawn for it."""
    drawn = measurements()[name]["draw"]
    return tuple(str(end) for other, ends in drawn.items() if other != level(name, value) for end in ends)


def measurement_slots(patient: Patient, name: str) -> dict[str, str]:
    """What fills the slots of a question on ``patient`` that concerns the measurement ``name``."""
    entry = measurements()[name]
    value = with_unit(name, patient.values[name])
    listed = {"person": patient.person, "values": patient.listed}
    return listed | {"name": entry["name"], "value": value, "range": entry["range"]}


def ecg_fields(patient: Patient, rng: np.random.Generator) -> dict:
    """The machine's record of a patient's ECG: times in ms from the start of the recording, axes in degrees."""
    values = patient.values
    rr_interval = round(60_000 / values["rate"])
    p_onset = int(rng.integers(30, 60))
    qrs_onset = p_onset + values["pr"]
    qt_interval = round(values["qtc"] * sqrt(rr_interval / 1000))  # Bazett
    return {
        "subject_id": patient.subject_id,
        "study_id": patient.subject_id,
        "cart_id": int(rng.integers(9001, 9010)),
        "ecg_time": f"2100-{rng.integers(1, 13):02}-{rng.integers(1, 29):02} {rng.integers(7, 19):02}:00:00",
        "report_0": "Sinus rhythm",
        "report_1": "Measurements only",
        "report_3": "Synthetic ECG",
        "bandwidth": "0.05-150 Hz",
        "filtering": "50 Hz notch",
        "rr_interval": rr_interval,
        "p_onset": p_onset,
        "p_end": p_onset + min(values["pr"] - 10, int(rng.integers(80, 110))),
        "qrs_onset": qrs_onset,
        "qrs_end": qrs_onset + values["qrs"],
        "t_end": qrs_onset + qt_interval,
        "p_axis": int(rng.integers(20, 70)),
        "qrs_axis": values["axis"],
        "t_axis": int(rng.integers(20, 70)),
    }


# Helpers


def sentence(text: str) -> str:
    """``text`` with a capital first letter."""
    return text[0].upper() + text[1:]


def one_of(items: list[T], rng: np.random.Generator) -> T:
    return items[rng.integers(len(items))]


def shuffled(items: list[T], rng: np.random.Generator) -> list[T]:
    return [items[index] for index in rng.permutation(len(items))]


def _take(pool: list[T], count: int, rng: np.random.Generator, key: Callable[[T], Hashable]) -> list[T]:
    """``count`` random items, spread evenly over the values of ``key``."""
    if count > len(pool):
        raise TooFew(len(pool))
    return _in_turns(pool, rng, key)[:count]


def _in_turns(items: list[T], rng: np.random.Generator, key: Callable[[T], Hashable]) -> list[T]:
    """``items`` in a random order in which each value of ``key`` comes once before any comes again."""
    seen: Counter[Hashable] = Counter()
    rounds = []
    for item in shuffled(items, rng):
        rounds.append((seen[key(item)], item))
        seen[key(item)] += 1
    return [item for _, item in sorted(rounds, key=lambda entry: entry[0])]


def _flat(pairs: list[tuple[T, T]]) -> list[T]:
    return [item for pair in pairs for item in pair]


def _yaml(name: str) -> dict:
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))
