import math

import pytest
import torch
from helpers import normal, seeded
from sketch_examples import smooth

from sketching.sketches.noise_validation import validated_noise


def noise_for(rows: torch.Tensor, seed: int) -> float:
    read = torch.arange(len(rows)) % 3 == 0
    return validated_noise(rows, read, 20, 1e-3, seeded(seed))


@pytest.mark.parametrize("seed", range(3))
def test_calm_rows_call_for_no_more_than_the_least(seed):
    assert noise_for(smooth(90, 120), seed) == 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_stand_out_call_for_noise(seed):
    rows = smooth(90, 120)
    unread = [i for i in range(90) if i % 3]
    rows[unread[:8]] += 30 * normal(8, 120)
    assert noise_for(rows, seed) >= 0.03


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_say_nothing_of_each_other_call_for_chance_alone(seed):
    """Sparse rows of wild sizes: those read are the worst that could be sketched with."""
    scales = torch.logspace(0, 4, 90)[torch.randperm(90, generator=seeded(5))].double()
    rows = torch.eye(90, 120, dtype=torch.float64) * scales.unsqueeze(-1)
    assert noise_for(rows, seed) in (0.12, math.inf)
