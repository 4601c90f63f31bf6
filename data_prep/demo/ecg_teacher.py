"""The demo's simulated teacher: answers to its questions, with named habits by which a language model errs.

A habit applies to the answers that it would change, and is followed in a share of them. Questions and references stay
as they are, and neither rewards nor prompts know of the teacher.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

from data_prep.common.errors import InputError
from data_prep.demo.ecg_sampler import Question, sentence, templates_file

PROBABILITY = 0.75


# A habit answers a question, given the wrong value that the teacher believes in ("" if there is none). It returns ""
# for a question that the habit is not about.
Habit = Callable[[Question, str], str]


def _agree(question: Question, _wrong: str) -> str:
    """Say yes to a leading question whose answer is no, and give the reason for that no."""
    return sentence(question.answer.replace("No, ", "Yes, ", 1)) if question.answer.startswith("No, ") else ""


def _with_wrong_value(habit: str) -> Habit:
    def apply(question: Question, wrong: str) -> str:
        if not wrong or question.answer.startswith(("Yes, ", "No, ")):
            return ""
        return sentence(templates_file()["teacher"][habit].format(value=question.value, wrong=wrong))

    return apply


HABITS: Mapping[str, Habit] = {
    "agrees": _agree,
    # Take what is right for a common error, and correct it to a wrong value of the same attribute.
    "corrects": _with_wrong_value("corrects"),
    # Add a wrong value of the same attribute to the right one, and leave open which of them it is.
    "wavers": _with_wrong_value("wavers"),
}


@dataclass(frozen=True)
class TeacherAnswer:
    """``habit`` names the one that the answer shows; it is "" for the reference."""

    text: str
    habit: str


def check_teacher(probability: float) -> None:
    """Raise an ``InputError``, which names the option, for a bad probability."""
    if not 0 <= probability <= 1:
        raise InputError(f"--teacher_probability is {probability:g}; give a probability from 0 to 1")


def teach(questions: Mapping[str, Question], probability: float, seed: int) -> dict[str, TeacherAnswer]:
    """The teacher's answer to each question by its id.

    With ``probability`` an answer shows one of the habits that apply. It depends on the id, the question and
    ``seed`` alone. Of one fact the teacher always believes the same wrong value.
    """
    answers = {}
    for id, question in questions.items():
        belief = random.Random(f"{seed} {question.fact or id}")
        wrong = belief.choice(question.wrong) if question.wrong else ""
        texts = {name: text for name, habit in HABITS.items() if (text := habit(question, wrong))}
        draw = random.Random(f"{seed} {id}")
        habit = draw.choice(list(texts)) if texts and draw.random() < probability else ""
        answers[id] = TeacherAnswer(texts.get(habit, question.answer), habit)
    return answers


def figures(answers: Mapping[str, TeacherAnswer]) -> str:
    """One line: how many answers there are, how many show which habit, how long they are."""
    counts = Counter(answer.habit for answer in answers.values() if answer.habit)
    each = ", ".join(f"{counts[habit]:,} {habit}" for habit in HABITS if counts[habit]) or "none"
    words = fmean(len(answer.text.split()) for answer in answers.values())
    return f"teacher: {len(answers):,} answers, {counts.total():,} with a habit ({each}); {words:.1f} words an answer"
