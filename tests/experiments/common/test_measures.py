import math

import numpy as np
import pytest
import torch

from experiments.common.measures import captured, error_text, geometric_mean, quartiles, relative_error, share_text


def test_relative_error_is_the_papers():
    assert relative_error(torch.tensor(3.0), torch.tensor(-2.0)) == 2.5
    assert relative_error(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])) == 1.5
    assert relative_error(torch.ones(2, 2), 2 * torch.ones(2, 2)) == 0.5


def test_relative_error_of_a_zero_truth_is_absolute():
    assert relative_error(torch.tensor([0.0, 3.0]), torch.zeros(2)) == 3.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_answer_that_is_not_finite_is_infinitely_wrong(bad):
    assert relative_error(torch.tensor([1.0, bad]), torch.ones(2)) == math.inf


def test_quartiles_occurred_and_infinities_are_none():
    assert quartiles([4.0, 1.0, 3.0, 2.0]) == {"lower": 2.0, "median": 3.0, "upper": 4.0}
    assert quartiles([1.0, math.inf, math.inf]) == dict.fromkeys(("lower", "median", "upper"))
    assert quartiles([1.0, 1.0, math.inf]) == {"lower": 1.0, "median": 1.0, "upper": None}


def test_geometric_mean_counts_zeros_as_the_floor():
    assert geometric_mean([1e-2, 1e-4]) == pytest.approx(1e-3)
    assert geometric_mean([0.0], floor=1e-16) == pytest.approx(1e-16)


def test_captured_is_one_at_the_oracle_and_zero_at_the_start():
    start, oracle = [3.0, 5.0, 4.0], [1.0, 2.0, 1.5]
    assert captured(start, oracle, oracle)["share"] == 1
    assert captured(start, start, oracle)["share"] == 0
    assert captured(start, [4.0, 6.0, 5.0], oracle)["share"] < 0
    assert captured(oracle, start, oracle) is None


def test_captured_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(40):
        start = 2 + 0.2 * rng.standard_normal(30)
        ours = start - 0.4 + 0.1 * rng.standard_normal(30)
        found = captured(start, ours, start - 1.0, seed=seed)
        covered += found["low"] <= 0.4 <= found["high"]
    assert covered >= 34  # 95 % of 40, less three standard deviations


def test_captured_does_not_depend_on_the_order_of_pairs_but_on_the_pairing():
    start, ours, oracle = [3.0, 9.0, 5.0], [2.0, 8.5, 4.0], [1.0, 8.0, 3.0]
    found = captured(start, ours, oracle)
    turned = captured(start[::-1], ours[::-1], oracle[::-1])
    assert found["share"] == pytest.approx(turned["share"])
    assert found["headroom"] == pytest.approx(5 / 3)


def test_texts():
    assert error_text(None) == "-"
    assert error_text(1.23e-7) == "1.2e-07"
    assert share_text(None) == "no headroom"
    assert share_text({"share": 0.5}) == "50%"
    assert share_text({"share": 0.5, "low": 0.25, "high": 0.75}) == "50% (25% to 75%)"
