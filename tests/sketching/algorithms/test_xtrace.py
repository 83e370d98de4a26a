"""XTrace against its definition, one leave-one-out basis at a time, and against what is known of traces."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from helpers import kernel, normal, seeded, with_spectrum
from sketch_examples import haar

import rangeformer as rf
import sketching


def naive(A: torch.Tensor, omega: torch.Tensor) -> torch.Tensor:
    """Epperly, Tropp & Webber 2024, Section 2.1, literally: a factorisation for every vector left out."""
    n, count = omega.shape
    found = []
    for i in range(count):
        others = [j for j in range(count) if j != i]
        Q = torch.linalg.qr(A @ omega[:, others]).Q
        x = omega[:, i] - Q @ (Q.mT @ omega[:, i])
        x = x * ((n - count + 1) ** 0.5 / x.norm())
        found.append((Q.mT @ A @ Q).trace() + x @ A @ x)
    return torch.stack(found)


@pytest.mark.parametrize(
    "A", [kernel(30, noise=0.1), normal(30, 30, seed=5), haar(30, 30)], ids=["psd", "any", "decay"]
)
@pytest.mark.parametrize("num_matvecs", [4, 13, 24])
def test_is_what_the_paper_says(A, num_matvecs):
    count = num_matvecs // 2
    estimates = naive(A, normal(30, count))
    found = sketching.xtrace(A, num_matvecs, generator=seeded())
    assert found.value == pytest.approx(float(estimates.mean()), rel=1e-9)
    assert found.standard_error == pytest.approx(float(estimates.std()) / count**0.5, rel=1e-6)
    assert found.num_matvecs == 2 * count
    assert found.num_passes == 2


def test_is_unbiased_and_knows_its_error():
    A = kernel(120, noise=0.1)
    found = [sketching.xtrace(A, 40, generator=seeded(seed)) for seed in range(80)]
    values, truth = torch.tensor([x.value for x in found]), float(A.trace())
    assert abs(float(values.mean()) - truth) < 4 * float(values.std()) / 80**0.5
    claimed = sum(x.standard_error**2 for x in found) / 80
    assert 0.3 < float((values - truth).square().mean()) / claimed < 3


def test_beats_plain_probes_where_the_spectrum_decays():
    A = with_spectrum(torch.arange(1, 101, dtype=torch.float64) ** -2.0)
    errors = [abs(sketching.xtrace(A, 30, generator=seeded(s)).value - float(A.trace())) for s in range(10)]
    plain = (2 * float(A.square().sum()) / 30) ** 0.5  # standard deviation of Gaussian probes
    assert np.mean(errors) < 0.05 * plain


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_trace_of_low_rank_is_exact(rank, dtype):
    A = (normal(40, rank) @ normal(rank, 40, seed=1)).to(dtype)
    found = sketching.xtrace(A, 14)
    scale = float(torch.linalg.matrix_norm(A, "nuc"))
    assert abs(found.value - float(A.double().trace())) <= 100 * torch.finfo(dtype).eps * scale
    assert found.standard_error <= 100 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("n", [1, 2, 9])
def test_everything_read_is_exact(n):
    A = normal(n, n, seed=3)
    found = sketching.xtrace(A, 2 * n + 4)
    assert found.value == pytest.approx(float(A.trace()), rel=1e-9)
    assert found.num_matvecs == 2 * n


def test_scale_seed_and_products_alone():
    A = kernel(50, noise=0.1)
    first = sketching.xtrace(A, 20, generator=seeded(1))
    assert first == sketching.xtrace(A, 20, generator=seeded(1))
    assert first.value != sketching.xtrace(A, 20, generator=seeded(2)).value
    by_products = scipy.sparse.linalg.aslinearoperator(A.numpy())
    assert sketching.xtrace(by_products, 20, generator=seeded(1)).value == pytest.approx(first.value)
    for factor in (1e-100, -1e100):
        scaled = sketching.xtrace(factor * A, 20, generator=seeded(1))
        assert scaled.value == pytest.approx(factor * first.value)
        assert scaled.standard_error == pytest.approx(abs(factor) * first.standard_error)


def test_nothing_is_read_of_a_bad_argument():
    operator = rf.as_operator(torch.eye(6))
    for num_matvecs in (0, 3):
        with pytest.raises(ValueError, match="`num_matvecs` must be an integer >= 4"):
            sketching.xtrace(operator, num_matvecs)
    assert operator.reads == rf.Reads()
    with pytest.raises(ValueError, match="`A` must be square"):
        sketching.xtrace(torch.ones(3, 4), 6)
    with pytest.raises(ValueError, match="must be finite"):
        sketching.xtrace((lambda v: v * float("nan"), (6, 6)), 6)
