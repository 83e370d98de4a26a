"""Random matrices: moments and spectra of every distribution against the table of their definition."""

import pytest
import torch
from helpers import seeded

from rangeformer.baselines.lawt.generators import (
    POSITIVE_DISTRIBUTIONS,
    SPECTRAL_DISTRIBUTIONS,
    coefficients,
    draw_scales,
    mixture,
    symmetric,
    wigner,
)

A, COUNT = 10.0, 4000
SCALES = torch.full((COUNT,), A, dtype=torch.float64)
# mean and standard deviation of the eigenvalues at n = 5, kurtosis, share of positive definite matrices
MOMENTS = {
    "semicircle": (0, 12.9, 1.95, 0.0),
    "uniform": (0, 12.9, 1.80, 0.030),
    "gaussian": (0, 12.9, 2.97, 0.032),
    "laplace": (0, 12.9, 5.85, 0.032),
    "abs_semicircle": (11.1, 6.7, 2.1, 1),
    "abs_laplace": (9.1, 9.2, 9.2, 1),
    "marchenko_pastur": (16.7, 16.3, 3.05, 1),
}


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_coefficients_have_one_standard_deviation(kind):
    drawn = coefficients(SCALES, (3, 4), kind, seeded())
    assert drawn.std().item() == pytest.approx(A / 3**0.5, rel=0.02)
    assert abs(drawn.mean().item()) < 0.1
    assert (drawn.abs().max() <= A) == (kind == "uniform")


def test_wigner_matrices_have_one_variance_everywhere():
    W = wigner(SCALES, 5, "uniform", seeded())
    assert torch.equal(W, W.mT)
    spread = W.std(0)
    assert spread.min() > 0.95 * A / 3**0.5
    assert spread.max() < 1.05 * A / 3**0.5


@pytest.mark.parametrize("law", SPECTRAL_DISTRIBUTIONS)
def test_eigenvalues_follow_the_law(law):
    M = symmetric(law, SCALES, 5, "uniform", seeded(1))
    assert torch.equal(M, M.mT)
    L = torch.linalg.eigvalsh(M)
    mean, std, kurtosis, positive = MOMENTS[law]
    assert L.mean().item() == pytest.approx(mean, abs=0.35)
    assert L.std().item() == pytest.approx(std, rel=0.04)
    standard = (L - L.mean()) / L.std()
    assert standard.pow(4).mean().item() == pytest.approx(kurtosis, rel=0.15)
    assert (L.min(1).values > 0).double().mean().item() == pytest.approx(positive, abs=0.01)
    assert (law in POSITIVE_DISTRIBUTIONS) == (positive == 1)


def test_absolute_semicircle_has_the_moduli_of_the_semicircle():
    L = torch.linalg.eigvalsh(symmetric("semicircle", SCALES[:20], 5, "uniform", seeded(2)))
    moduli = torch.linalg.eigvalsh(symmetric("abs_semicircle", SCALES[:20], 5, "uniform", seeded(2)))
    torch.testing.assert_close(L.abs().sort().values, moduli)


@pytest.mark.parametrize("law", SPECTRAL_DISTRIBUTIONS)
def test_scale_is_a_factor(law):
    one, two = (symmetric(law, a * SCALES[:5], 4, "gaussian", seeded(3)) for a in (1.0, 2.0))
    torch.testing.assert_close(two, 2 * one)


def test_mixture_draws_every_law():
    laws = ("semicircle", "marchenko_pastur")
    L = torch.linalg.eigvalsh(mixture(laws, SCALES[:400], 5, "uniform", seeded()))
    assert (L.min(1).values > 0).double().mean().item() == pytest.approx(0.5, abs=0.1)


def test_scales_are_whole_numbers_between_the_bounds():
    assert set(draw_scales((2, 5), 200, seeded()).tolist()) == {2.0, 3.0, 4.0, 5.0}


def test_same_seed_same_matrices_and_torch_left_alone():
    before = torch.random.get_rng_state()
    first, second = (mixture(SPECTRAL_DISTRIBUTIONS, SCALES[:50], 3, "uniform", seeded(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_unknown_law():
    with pytest.raises(ValueError, match="`law` must be one of .'semicircle'"):
        symmetric("positive", SCALES, 3, "uniform", seeded())
