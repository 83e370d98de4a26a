"""Ninety per cent intervals of log-determinants and of their gradients cover the truth about as often as they say."""

import pytest
import torch
from helpers import seeded
from scipy.special import stdtrit

import rangeformer as rf

N, NUM_SEEDS = 300, 60
# Binomial: of 60 draws at 90 %, fewer than 47 come once in two hundred times.
FEWEST, MOST = 47, 59


def kernel(scale: torch.Tensor) -> torch.Tensor:
    x = torch.rand(N, 2, generator=seeded(), dtype=torch.float64)
    return torch.exp(-torch.cdist(x, x) / scale) + 0.05 * torch.eye(N, dtype=torch.float64)


def test_coverage_over_seeds():
    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    A = kernel(scale)
    truth = 2 * torch.linalg.cholesky(A).diagonal().log().sum()
    (slope,) = torch.autograd.grad(truth, scale, retain_graph=True)
    values, slopes = 0, 0
    reach = float(stdtrit(14, 0.95))
    for seed in range(NUM_SEEDS):
        result = rf.logdet(A, preconditioner="rpcholesky", generator=seeded(seed))
        low, high = result.interval(0.9)
        values += bool(low <= truth <= high)
        (error,) = rf.gradient_error(result, [scale])
        (found,) = torch.autograd.grad(result.value, scale, retain_graph=True)
        slopes += bool((found - slope).abs() <= reach * error)
    assert FEWEST <= values <= MOST
    assert FEWEST <= slopes <= MOST


def test_more_probes_make_it_smaller_and_exact_gradients_have_none():
    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    A = kernel(scale)
    P = rf.build_preconditioner(A.detach(), "rpcholesky", generator=seeded())
    few, many = (
        float(rf.gradient_error(rf.logdet(A, preconditioner=P, num_probes=m, generator=seeded()), [scale])[0])
        for m in (10, 160)
    )
    assert many < few / 2
    small = torch.diag(torch.linspace(1, 2, 50, dtype=torch.float64)) * scale
    assert float(rf.gradient_error(rf.logdet(small), [scale])[0]) == 0


def test_of_both_halves_of_a_likelihood_and_parameters_that_do_not_matter():
    scale, other = (torch.tensor(0.3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    result = rf.inv_quad_logdet(kernel(scale), torch.ones(N, dtype=torch.float64), generator=seeded())
    error, nothing = rf.gradient_error(result, [scale, other])
    assert error > 0
    assert nothing == 0


def test_without_a_gradient_it_is_refused():
    with torch.no_grad():
        result = rf.logdet(kernel(torch.tensor(0.3, dtype=torch.float64)))
    with pytest.raises(ValueError, match="`result` must carry a gradient"):
        rf.gradient_error(result, [])
