import pytest

from data_prep.common.errors import InputError
from recipes.trainer.monitor import Drift, TrainingFailed, check_alarms, check_graded, rollout_metrics

REWARD = {"score": 0.5, "acc": 1.0, "contradiction": 0.0}


def metrics_of(*rollouts: tuple[str, list[int], str, float]) -> dict[str, float]:
    uids, responses, sources, scores = zip(*rollouts, strict=True)
    return rollout_metrics(uids, responses, sources, [REWARD | {"score": score} for score in scores])


def test_each_number_of_the_reward_is_averaged():
    metrics = metrics_of(("a", [1], "ecg/CK", 0.0), ("a", [2], "ecg/CK", 1.0))
    assert metrics["rollout/score"] == 0.5
    assert metrics["rollout/acc"] == 1.0


def test_text_of_the_reward_is_left_out():
    rewards = [REWARD | {"pred": "a hash"}]
    assert "rollout/pred" not in rollout_metrics(["a"], [[1]], ["ecg/CK"], rewards)


def test_scores_are_given_by_data_source():
    metrics = metrics_of(("a", [1], "ecg/CK", 0.0), ("b", [2], "ecg/CD", 1.0), ("b", [3], "ecg/CD", 0.5))
    assert (metrics["rollout/score/ecg/CK"], metrics["rollout/score/ecg/CD"]) == (0.0, 0.75)


@pytest.mark.parametrize(
    ("rollouts", "share"),
    [
        # The same answer to one prompt, as often as it likes, is no sign of a collapse.
        ([("a", [1]), ("a", [1]), ("b", [2]), ("b", [3])], 0.0),
        ([("a", [1]), ("a", [2]), ("b", [1]), ("b", [3])], 0.5),
        ([("a", [1]), ("b", [1]), ("c", [1])], 1.0),
    ],
)
def test_answers_that_other_prompts_got_too_are_counted(rollouts, share):
    metrics = metrics_of(*((uid, response, "ecg/CK", 0.0) for uid, response in rollouts))
    assert metrics["rollout/identical_answers"] == share


def drift(tmp_path, steps=2, **limits) -> Drift:
    return Drift({"length": limits}, steps, tmp_path / "baseline.json")


@pytest.mark.parametrize(
    ("limits", "value", "alarm"),
    [
        ({"factor": 1.5}, 14.9, ""),
        ({"factor": 1.5}, 15.1, "more than 1.5 times the first steps' 10"),
        ({"factor": 1.5}, 6.6, "less than 1/1.5 of the first steps' 10"),
        ({"rise": 1}, 11.1, "more than 1 above the first steps' 10"),
        ({"rise": 1}, 5, ""),
        ({"fall": 1}, 8.9, "more than 1 below the first steps' 10"),
        ({"fall": 1}, 15, ""),
    ],
)
def test_an_alarm_beyond_each_limit(tmp_path, limits, value, alarm):
    monitor = drift(tmp_path, **limits)
    for step, length in enumerate((9.0, 11.0, value - 1)):
        assert monitor.check(step, {"length": length}) == []
    lines = monitor.check(4, {"length": value + 1, "other": 1e9})
    assert lines == ([f"ALARM step 4: length is {value:.3g}, {alarm}"] if alarm else [])


def test_a_resumed_run_is_compared_with_its_beginning(tmp_path):
    first = drift(tmp_path, steps=1, rise=1)
    first.check(1, {"length": 1.0})
    assert drift(tmp_path, steps=1, rise=1).check(2, {"length": 5.0})


def test_a_metric_that_the_first_steps_lacked_raises_no_alarm(tmp_path):
    monitor = drift(tmp_path, steps=1, rise=1)
    monitor.check(1, {})
    assert monitor.check(2, {"length": 5.0}) == []


def test_patterns_cover_all_categories(tmp_path):
    monitor = Drift({"rollout/score/*": {"fall": 0.1}}, 1, tmp_path / "baseline.json")
    monitor.check(1, {"rollout/score/ecg/CK": 0.5, "rollout/score/ecg/CD": 0.5})
    (line,) = monitor.check(2, {"rollout/score/ecg/CK": 0.45, "rollout/score/ecg/CD": 0.3})
    assert "ecg/CD" in line


def test_what_is_no_number_is_not_watched(tmp_path):
    monitor = Drift({"*": {"fall": 0.1}}, 1, tmp_path / "baseline.json")
    monitor.check(1, {"score": 0.5, "dropped": {"easy": 3}})
    (line,) = monitor.check(2, {"score": 0.3, "dropped": {"easy": 9}})
    assert "score" in line


@pytest.mark.parametrize(
    ("limits", "named"), [({"rize": 1}, "rize"), ({}, "no limit"), (3, "no limit"), ({"rise": "abc"}, "rise is abc")]
)
def test_a_bad_limit_is_named(limits, named):
    with pytest.raises(InputError, match=f"length: {named}"):
        check_alarms({"length": limits})


def test_a_step_that_could_not_be_graded_ends_the_run(capsys):
    failed, graded = {"grader_failed": 1.0, "pred": "grader failed: no database"}, {"grader_failed": 0.0}
    check_graded("step 3", [])
    check_graded("step 3", [{"score": 1.0}])
    assert not capsys.readouterr().out
    check_graded("step 3", [failed] + [graded] * 19)
    assert (
        capsys.readouterr().out == "ALARM 1 of 20 answers of step 3 could not be graded (grader failed: no database)\n"
    )
    with pytest.raises(TrainingFailed, match="2 of 20 answers of step 3 .*no database"):
        check_graded("step 3", [graded] * 18 + [failed] * 2)
    with pytest.raises(TrainingFailed, match="1 of 1 "):
        check_graded("step 3", [failed])


def test_a_metric_that_is_no_number_any_more_alarms(tmp_path):
    monitor = Drift({"loss": {"rise": 1}}, steps=1, file=tmp_path / "baseline.json")
    monitor.check(1, {"loss": 0.5})
    (line,) = monitor.check(2, {"loss": float("nan")})
    assert "loss is nan, no number, unlike the first steps' 0.5" in line


def test_a_metric_that_was_no_number_at_first_is_compared_with_the_steps_where_it_was_one(tmp_path):
    monitor = Drift({"loss": {"rise": 1}}, steps=2, file=tmp_path / "baseline.json")
    for step, loss in enumerate((float("nan"), 0.5, 2.0), start=1):
        assert monitor.check(step, {"loss": loss}) == []
    (line,) = monitor.check(4, {"loss": 2.0})
    assert "more than 1 above the first steps' 0.5" in line
