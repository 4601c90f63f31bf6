import numpy as np
import pytest

from recipes.evaluation.bootstrap import bootstrap_interval, paired_bootstrap


def test_interval_agrees_with_the_normal_approximation():
    values = [1.0] * 300 + [0.0] * 700
    low, high = bootstrap_interval(values)
    half_width = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert low == pytest.approx(0.3 - half_width, abs=0.003)
    assert high == pytest.approx(0.3 + half_width, abs=0.003)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        low, high = bootstrap_interval(generator.random(150) < 0.4)
        covered += low <= 0.4 <= high
    assert 88 <= covered <= 99


def test_constant_values_have_an_interval_of_no_width():
    assert bootstrap_interval([1, 1, 1]) == (1.0, 1.0)
    assert bootstrap_interval([0]) == (0.0, 0.0)


def test_a_seed_gives_the_same_interval():
    values = np.random.default_rng(2).random(50)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_pairing_is_narrower_than_comparing_two_means():
    before = np.random.default_rng(5).random(200) < 0.5
    after = before.copy()
    after[np.flatnonzero(~before)[:20]] = True  # 20 of 200 questions won, none lost
    difference, low, high = paired_bootstrap(before, after)
    assert difference == pytest.approx(0.1)
    assert 0.05 < low < difference < high < 0.15  # two separate means would have an interval of about 0.2
    assert paired_bootstrap(after, before)[0] == pytest.approx(-0.1)


def test_no_difference():
    assert paired_bootstrap([0, 1, 1], [0, 1, 1]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("values", [[], [[1, 2]]])
def test_an_interval_needs_a_list_of_values(values):
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval(values)


def test_pairs_must_match_in_number():
    with pytest.raises(ValueError, match="2 and 1"):
        paired_bootstrap([0, 1], [1])
