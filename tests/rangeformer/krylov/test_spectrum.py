"""Spectra from some of their Ritz pairs: counts, quantiles and sums."""

import torch
from helpers import normal, seeded, with_spectrum

from rangeformer.krylov.projections import density_of
from rangeformer.krylov.ritz import Density, eigenvalues, spectral_sum
from rangeformer.krylov.search_space import SearchSpace
from rangeformer.operators import as_operator


def density(A: torch.Tensor, width: int, num_loops: int) -> Density:
    space = SearchSpace(as_operator(A), generator=seeded())
    probes = normal(*A.shape[:-2], A.shape[-1], width, seed=5)
    space.expand(probes)
    for _ in range(num_loops - 1):
        space.expand(space.reached())
    return density_of(space, probes)


def test_complete_space_gives_the_spectrum():
    true = torch.linspace(-1, 2, 30, dtype=torch.float64)
    found = density(with_spectrum(true), 10, 3)
    assert found.is_complete
    values, errors = eigenvalues(found)
    assert torch.allclose(values, true, atol=1e-13)
    assert errors.max() < 1e-12
    assert torch.allclose(spectral_sum(found, torch.square)[0], true.square().sum())


def test_counts_sum_to_n_and_converged_values_count_once():
    true = torch.cat([torch.linspace(1, 2, 190, dtype=torch.float64), torch.tensor([10.0, 20.0, 40.0]).double()])
    found = density(with_spectrum(true), 10, 5)
    assert torch.allclose(found.counts.sum(-1), torch.tensor(193.0).double())
    assert torch.allclose(found.counts_by_probe.sum(-2), torch.full((10,), 193.0).double())
    assert torch.allclose(found.counts[-3:], torch.ones(3, dtype=torch.float64))


def test_quantiles_follow_the_spectrum_and_their_errors_say_how_well():
    true = torch.cat([torch.linspace(1, 2, 190, dtype=torch.float64), torch.tensor([10.0, 20.0, 40.0]).double()])
    values, errors = eigenvalues(density(with_spectrum(true), 10, 5))
    assert bool((values.diff() >= 0).all())
    assert torch.linalg.vector_norm(values - true) < 0.02 * torch.linalg.vector_norm(true)
    assert ((values - true).abs() <= errors + 1e-12).double().mean() > 0.9
    assert torch.allclose(values[-3:], true[-3:])


def test_multiple_eigenvalues_keep_their_number():
    true = torch.cat([torch.ones(120), torch.full((80,), 3.0)]).double()
    found = density(with_spectrum(true), 20, 2)
    values, _ = eigenvalues(found)
    assert abs(int((values < 2).sum()) - 120) <= 15


def test_sums_are_as_good_as_their_standard_error_says():
    true = torch.logspace(0, 1, 200, dtype=torch.float64)
    misses = []
    for seed in range(5):
        A = with_spectrum(true, seed=seed)
        value, error = spectral_sum(density(A, 10, 4), torch.log, trace=true.sum())
        misses.append(float((value - true.log().sum()) / error))
    assert max(map(abs, misses)) < 4


def test_known_trace_is_a_control_variate():
    true = torch.linspace(1, 2, 300, dtype=torch.float64)
    found = density(with_spectrum(true), 10, 3)
    with_trace, without = spectral_sum(found, torch.log, trace=true.sum()), spectral_sum(found, torch.log)
    assert with_trace[1] < 0.3 * without[1]
    assert torch.allclose(spectral_sum(found, torch.clone, trace=true.sum())[0], true.sum())
