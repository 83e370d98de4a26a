"""The certificate cannot lie: reported residuals against residuals of 64-bit mantissas, over a campaign of matrices."""

import os
import warnings

import numpy as np
import pytest
import torch
from helpers import NAMES, normal, seeded

import rangeformer as rf

# Of every family; RANGEFORMER_CAMPAIGN=63 makes 2,016 problems in all.
NUM_PROBLEMS = int(os.environ.get("RANGEFORMER_CAMPAIGN", "10"))
KINDS = ["spd", "scaled", "low rank", "rbf", "indefinite", "singular", "graded", "batch"]


def matrix(kind: str, n: int, seed: int) -> torch.Tensor:
    """A symmetric matrix of a hostile kind, float64."""
    Q = torch.linalg.qr(normal(n, n, seed=seed)).Q
    decades = float(torch.rand((), generator=seeded(seed)))
    spectrum = torch.logspace(0, -4 - 11 * decades, n, dtype=torch.float64)
    spd = (Q * spectrum) @ Q.mT
    D = torch.logspace(-4, 4, n, dtype=torch.float64)[torch.randperm(n, generator=seeded(seed))]
    x = normal(n, 2, seed=seed + 1)
    A = {
        "spd": lambda: spd,
        "scaled": lambda: D[:, None] * ((Q * torch.logspace(0, -3, n, dtype=torch.float64)) @ Q.mT) * D,
        "low rank": lambda: Q[:, :2] @ Q[:, :2].mT + 10.0 ** (-4 - 8 * decades) * torch.eye(n),
        "rbf": lambda: torch.exp(-torch.cdist(x, x).square()) + 10.0 ** (-3 - 5 * decades) * torch.eye(n),
        "indefinite": lambda: (Q * (spectrum - spectrum.median())) @ Q.mT,
        "singular": lambda: (Q * (spectrum > 1e-3).double()) @ Q.mT,
        "graded": lambda: torch.exp(-2.0 * (torch.arange(n)[:, None] + torch.arange(n))).double() + 1e-9 * torch.eye(n),
        "batch": lambda: torch.stack([spd, torch.eye(n, dtype=torch.float64), 1e-8 * spd + torch.eye(n)]),
    }[kind]()
    return (A + A.mT) / 2


def residuals(A: torch.Tensor, b: torch.Tensor, x: torch.Tensor) -> np.ndarray:
    """Relative residual norms in extended precision."""
    wide = [t.double().numpy().astype(np.longdouble) for t in (A, b, x)]
    r = wide[1] - np.einsum("...ij,...jk->...ik", wide[0], wide[2])
    norm = np.sqrt((wide[1] ** 2).sum(-2))
    return np.sqrt((r**2).sum(-2)) / norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 70])
def test_reported_residuals_are_the_true_ones(kind, k, dtype):
    rtol = 1e-5 if dtype == torch.float32 else 1e-9
    lies, understated = [], []
    for seed in range(NUM_PROBLEMS):
        n = 5 + (7 * seed) % 40
        A = matrix(kind, n, seed).to(dtype)
        b = normal(*A.shape[:-1], k, seed=seed, dtype=dtype)
        name = ["learned-krylov", *NAMES][seed % (len(NAMES) + 1)]
        options = {"method": name} if name == "learned-krylov" else {"preconditioner": name}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rf.ConvergenceWarning)
            solution = rf.linear_solve(A, b, rtol=rtol, generator=seeded(seed), **options)
        true, reported = residuals(A, b, solution.value), solution.residual_norms.double().numpy()
        # Far below the tolerance, and where answers are worthless, only the size of the rounding matters.
        relevant = (true > rtol) & (true < 1)
        lies += [(seed, name)] * bool((solution.converged.numpy() & (true > 1.01 * rtol)).any())
        understated += [(seed, name)] * bool((relevant & (reported < true / 1.1 - 1e-15)).any())
        assert np.isfinite(solution.value.numpy()).all()
    assert lies == []
    assert understated == []
