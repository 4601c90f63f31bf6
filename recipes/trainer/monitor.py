"""What a training step's rollouts look like beyond their mean reward, and alarms when that drifts.

``rollout_metrics`` turns the rollouts of a step into metrics, ``Drift`` compares the mean of any metric over the last
steps with that over the run's first ones, and words an alarm. ``recipes.trainer.monitored`` feeds both from verl.
"""

import fnmatch
import json
import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from statistics import fmean
from typing import Any

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError

KINDS = ("factor", "rise", "fall")
MAX_FAILED = 0.05  # of a step's rollouts, which score 0 whatever they say


class TrainingFailed(RuntimeError):
    """Training cannot go on, or would teach nothing; the message is one line for the user."""


def check_graded(where: str, rewards: Sequence[Mapping[str, Any]]) -> None:
    """Raise ``TrainingFailed`` if the grader failed on more than ``MAX_FAILED`` of these, and print an alarm for fewer.

    ``pred`` may say why it failed.
    """
    failed = [reward for reward in rewards if reward.get("grader_failed")]
    if not failed:
        return
    cause = failed[0].get("pred", "its log line above says why")
    line = f"{len(failed)} of {len(rewards)} answers of {where} could not be graded ({cause})"
    if len(failed) > MAX_FAILED * len(rewards):
        raise TrainingFailed(f"{line}; mend it and start again to resume")
    print(f"ALARM {line}", flush=True)


def rollout_metrics(
    uids: Sequence[str],
    responses: Sequence[Sequence[int]],
    data_sources: Sequence[str],
    rewards: Sequence[Mapping[str, Any]],
) -> dict[str, float]:
    """Metrics of a step's rollouts, one item of each argument a rollout.

    ``rollout/<key>`` is the mean of each number that the reward function returns, ``rollout/score/<data source>`` the
    mean score by data source where there are several, ``rollout/identical_answers`` the share of the responses (token
    ids) that another prompt (``uids``) got too: near 1 for a policy with one answer for all.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for source, reward in zip(data_sources, rewards, strict=True):
        for key, value in reward.items():
            if isinstance(value, (int, float)):
                values[f"rollout/{key}"].append(float(value))
        if len(set(data_sources)) > 1:
            values[f"rollout/score/{source}"].append(float(reward["score"]))
    answers = {(uid, tuple(response)) for uid, response in zip(uids, responses, strict=True)}
    prompts = Counter(response for _, response in answers)
    shared = [float(prompts[tuple(response)] > 1) for response in responses]
    return {key: fmean(numbers) for key, numbers in values.items()} | {"rollout/identical_answers": fmean(shared)}


def check_alarms(alarms: Mapping[str, Mapping[str, float]]) -> None:
    """Raise an ``InputError`` for a metric whose limits are none of ``KINDS``."""
    for pattern, limits in alarms.items():
        if not isinstance(limits, Mapping) or not limits:
            raise InputError(f"monitor.alarms of {pattern}: no limit; give one or more of {', '.join(KINDS)}")
        for kind, limit in limits.items():
            if kind not in KINDS or not isinstance(limit, (int, float)) or limit <= 0:
                raise InputError(f"monitor.alarms of {pattern}: {kind} is {limit}; give {', '.join(KINDS)} above 0")


class Drift:
    """Compares the means of a run's metrics over its last steps with those over its first ones, its baseline.

    Means of as many steps both, ``steps``: single steps differ by the prompts that they happen to have.

    ``alarms`` maps a metric's name, or a pattern such as ``rollout/score/*``, to its limits: ``factor`` (alarm beyond
    that many times the baseline or below its inverse; for metrics above 0), ``rise`` and ``fall`` (alarm that far above
    or below it). The baseline is kept in ``file``, so that a run that resumes is compared with its beginning.
    """

    def __init__(self, alarms: Mapping[str, Mapping[str, float]], steps: int, file: Path):
        self.alarms = alarms
        self.steps = steps
        self.file = file
        self.last: deque[dict[str, float]] = deque(maxlen=steps)
        self.first: list[dict[str, float]] = json.loads(file.read_text()) if file.is_file() else []

    def check(self, step: int, metrics: Mapping[str, Any]) -> list[str]:
        """One line for each metric that has drifted by this step; none before there are last steps too."""
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, Real)}
        watched = {name: value for name, value in numbers.items() if self._limits(name)}
        if len(self.first) < self.steps:
            self.first.append({name: value for name, value in watched.items() if not math.isnan(value)})
            with atomic_output(self.file) as partial:
                partial.write_text(json.dumps(self.first))
            return []
        self.last.append(watched)
        if len(self.last) < self.steps:
            return []
        lines = []
        for name in watched:
            before, now = (_mean(name, records) for records in (self.first, self.last))
            if before is not None and (limit := _beyond(now, before, self._limits(name))):
                lines.append(f"ALARM step {step}: {name} is {now:.3g}, {limit} the first steps' {before:.3g}")
        return lines

    def _limits(self, name: str) -> Mapping[str, float]:
        return next((limits for pattern, limits in self.alarms.items() if fnmatch.fnmatchcase(name, pattern)), {})


def _mean(name: str, records: Iterable[Mapping[str, float]]) -> float | None:
    """The mean of a metric over the steps that have it; None without any."""
    values = [metrics[name] for metrics in records if name in metrics]
    return fmean(values) if values else None


def _beyond(value: float, baseline: float, limits: Mapping[str, float]) -> str:
    """Which limit ``value`` breaks, "" if none."""
    if math.isnan(value):
        return "no number, unlike"
    factor = limits.get("factor")
    if factor and value > baseline * factor:
        return f"more than {factor:g} times"
    if factor and value < baseline / factor:
        return f"less than 1/{factor:g} of"
    if "rise" in limits and value > baseline + limits["rise"]:
        return f"more than {limits['rise']:g} above"
    if "fall" in limits and value < baseline - limits["fall"]:
        return f"more than {limits['fall']:g} below"
    return ""
