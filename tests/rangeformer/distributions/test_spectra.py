"""The paper's spectra against their formulas, in bases that differ from draw to draw."""

import math

import pytest
import torch

from rangeformer.distributions import DISTRIBUTIONS
from tests.helpers import seeded

N = 33
X = torch.linspace(0, 1, N, dtype=torch.float64)


def power(d: torch.Tensor) -> torch.Tensor:
    a = math.log(1 - d[N // 2]) / math.log(X[N // 2])
    assert 0 <= a <= 5
    return 1 - X**a


def cosine(d: torch.Tensor) -> torch.Tensor:
    return (1 + torch.cos(math.pi * X)) / 2


def logistic(d: torch.Tensor) -> torch.Tensor:
    a = 2 * math.log(d[0] / (1 - d[0]))
    assert 0.3 <= a <= 30
    return 1 / (1 + torch.exp(a * (X - 0.5)))


def logarithm(d: torch.Tensor) -> torch.Tensor:
    # the one a whose curve goes through the middle, by bisection
    low, high = 1.0, 1e3
    for _ in range(100):
        a = math.sqrt(low * high)
        low, high = (a, high) if 1 - math.log1p(a / 2) / math.log1p(a) > d[N // 2] else (low, a)
    return 1 - torch.log1p(a * X) / math.log1p(a)


def ramp(d: torch.Tensor) -> torch.Tensor:
    c = float(X[1] / (1 - d[1]))
    assert 0.1 <= c <= 1
    return (1 - X / c).clamp_min(1e-4)


@pytest.mark.parametrize("formula", [power, cosine, logistic, logarithm, ramp], ids=lambda formula: formula.__name__)
@pytest.mark.parametrize("seed", range(4))
def test_eigenvalues_are_those_of_the_paper(formula, seed):
    matrix = DISTRIBUTIONS[f"decay_{formula.__name__}"](N, seeded(seed), torch.float64)
    values = torch.linalg.eigvalsh(matrix).flip(0)
    torch.testing.assert_close(values, formula(values), atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", ["power", "cosine", "logistic", "logarithm", "ramp"])
def test_bases_are_random(kind):
    first, second = (
        torch.linalg.eigh(DISTRIBUTIONS[f"decay_{kind}"](N, seeded(seed), torch.float64)).eigenvectors[:, -1]
        for seed in (0, 1)
    )
    assert abs(first @ second) < 0.7


def test_low_rank_has_its_rank():
    for seed in range(5):
        values = torch.linalg.eigvalsh(DISTRIBUTIONS["low_rank"](64, seeded(seed), torch.float64))
        assert values[: 64 - 16].max() <= 1.01e-2
