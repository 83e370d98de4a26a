"""What holds of every low-rank approximation, on random matrices and against dense float64 oracles.

Some 160 cases; `tests/rangeformer/test_properties.py` says how to run more of them.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from helpers import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sketching

EXAMPLES = int(os.environ.get("RANGEFORMER_EXAMPLES", "11"))
F32, F64 = torch.float32, torch.float64
MOST_EXPONENT = {F64: 300, F32: 60}

several = settings(max_examples=EXAMPLES, derandomize=True, deadline=None)


@dataclass(frozen=True)
class Case:
    """A matrix of known rank, and the rank to ask for, which is at least that."""

    A: Tensor
    rank: int
    seed: int

    def __repr__(self) -> str:
        return f"Case(shape={tuple(self.A.shape)}, {self.A.dtype}, rank={self.rank}, seed={self.seed})"


def _factors(m: int, n: int, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Haar bases, and values between 1 and 0.1."""
    U, V = (torch.linalg.qr(normal(size, rank, seed=seed + i)).Q for i, size in enumerate((m, n)))
    return U, torch.linspace(1, 0.1, rank, dtype=torch.float64), V


@st.composite
def rectangles(draw, dtypes=(F64, F32)) -> Case:
    """Tall, square and wide, small half of the time; of full rank, or asked for a higher one than they have."""
    sizes = st.one_of(st.integers(1, 3), st.integers(4, 40))
    m, n, seed = draw(sizes), draw(sizes), draw(st.integers(0, 10**6))
    rank = draw(st.integers(1, min(m, n)))
    U, values, V = _factors(m, n, rank, seed)
    wanted = draw(st.sampled_from(sorted({rank, min(m, n)})))
    return Case(((U * values) @ V.mT).to(draw(st.sampled_from(dtypes))), wanted, seed)


@st.composite
def semidefinite(draw, dtypes=(F64, F32)) -> Case:
    n, seed = draw(st.one_of(st.integers(1, 3), st.integers(4, 40))), draw(st.integers(0, 10**6))
    rank = draw(st.integers(1, n))
    U, values, _ = _factors(n, n, rank, seed)
    A = (U * values) @ U.mT
    return Case(((A + A.mT) / 2).to(draw(st.sampled_from(dtypes))), draw(st.sampled_from(sorted({rank, n}))), seed)


def _svd(A, rank: int) -> tuple[Tensor, Tensor, Tensor, float]:
    found = sketching.randomized_svd(A, rank)
    return found.U, found.S, found.Vh.mT, found.relative_error


def _nystrom(A, rank: int) -> tuple[Tensor, Tensor, Tensor, float]:
    found = sketching.nystrom(A, rank)
    return found.eigenvectors, found.eigenvalues, found.eigenvectors, found.relative_error


CALLS: dict[str, tuple[Callable[..., tuple[Tensor, Tensor, Tensor, float]], Callable[..., st.SearchStrategy[Case]]]] = {
    "randomized_svd": (_svd, rectangles),
    "nystrom": (_nystrom, semidefinite),
}
every_call = pytest.mark.parametrize("name", CALLS)
# sums of tens of terms, and the shift that stabilises a Nystrom approximation
ROUNDING = {dtype: 300 * torch.finfo(dtype).eps for dtype in (F64, F32)}


def drawn(
    name: str, data: st.DataObject, **options
) -> tuple[Callable[..., tuple[Tensor, Tensor, Tensor, float]], Case]:
    call, cases = CALLS[name]
    return call, data.draw(cases(**options), label="case")


def assert_is(found: tuple[Tensor, Tensor, Tensor, float], A: Tensor, rank: int) -> None:
    """The factors are A's to rounding: bases orthonormal, values those of the oracle, the error next to nothing."""
    U, S, V, stated = found
    assert all(part.dtype == A.dtype for part in (U, S, V))
    assert (U.shape, S.shape, V.shape) == ((A.shape[0], rank), (rank,), (A.shape[1], rank))
    rounding, wide = ROUNDING[A.dtype], A.detach().double()
    exact = np.linalg.svd(wide.numpy(), compute_uv=False)
    size = max(exact[0], float(torch.finfo(F64).tiny))
    for basis in (U.double(), V.double()):
        assert float((basis.mT @ basis - torch.eye(rank, dtype=F64)).abs().max()) <= rounding
    assert np.abs(S.double().numpy() / size - exact[:rank] / size).max() <= rounding
    error = (U.double() * (S.double() / size)) @ V.double().mT - wide / size
    assert float(torch.linalg.matrix_norm(error)) <= rounding * rank**0.5
    assert stated <= rounding * max(A.shape) ** 0.5


@every_call
@several
@given(st.data())
def test_matrices_of_that_rank_are_found(name, data):
    call, case = drawn(name, data)
    assert_is(call(case.A, case.rank), case.A, case.rank)


@every_call
@several
@given(st.data())
def test_order_of_rows_and_columns(name, data):
    call, case = drawn(name, data)
    generator = torch.Generator().manual_seed(case.seed)
    rows = torch.randperm(case.A.shape[0], generator=generator)
    columns = rows if name == "nystrom" else torch.randperm(case.A.shape[1], generator=generator)
    A = case.A[rows][:, columns]
    assert_is(call(A, case.rank), A, case.rank)


@every_call
@several
@given(st.data())
def test_powers_of_two(name, data):
    """Of the matrix change the values by as much, and nothing else."""
    call, case = drawn(name, data)
    exponent = data.draw(st.integers(-MOST_EXPONENT[case.A.dtype], MOST_EXPONENT[case.A.dtype]), label="exponent")
    U, S, V, stated = call(case.A * 2.0**exponent, case.rank)
    assert_is((U, S * 2.0**-exponent, V, stated), case.A, case.rank)


@several
@given(semidefinite(), st.sampled_from([2.0**-6, 1.0, 64.0]))
def test_a_multiple_of_the_identity_moves_eigenvalues(case, c):
    n = len(case.A)
    A = case.A + c * torch.eye(n, dtype=case.A.dtype)
    found = _nystrom(A, n)
    assert_is(found, A, n)
    expected = np.sort(np.linalg.eigvalsh(case.A.double().numpy()))[::-1] + c
    np.testing.assert_allclose(found[1].double().numpy(), expected, rtol=0, atol=(1 + c) * ROUNDING[A.dtype])


@every_call
@several
@given(st.data())
def test_float32_is_float64_to_its_accuracy(name, data):
    call, case = drawn(name, data, dtypes=(F64,))
    narrow, wide = call(case.A.float(), case.rank), call(case.A, case.rank)
    rounding = ROUNDING[F32]
    assert float((narrow[1].double() - wide[1]).abs().max()) <= rounding * float(wide[1][0])
    products = [(U.double() * S.double()) @ V.double().mT for U, S, V, _ in (narrow, wide)]
    assert float((products[0] - products[1]).abs().max()) <= rounding * float(wide[1][0])


def _strided(values: Tensor) -> Tensor:
    larger = torch.full(tuple(2 * size + 1 for size in values.shape), torch.nan, dtype=values.dtype)
    return larger[1::2, 1::2].copy_(values)


LAYOUTS: dict[str, Callable[[Tensor], Tensor | np.ndarray]] = {
    "Fortran": lambda values: values.mT.contiguous().mT,
    "every second entry": _strided,
    "NumPy, Fortran": lambda values: np.asfortranarray(values.numpy()),
    "NumPy, backwards": lambda values: np.ascontiguousarray(np.flip(values.numpy()))[::-1, ::-1],
    "requires grad": lambda values: values.clone().requires_grad_(),
}


@every_call
@several
@given(st.data())
def test_order_in_memory_and_grad(name, data):
    call, case = drawn(name, data)
    A = LAYOUTS[data.draw(st.sampled_from(list(LAYOUTS)), label="layout")](case.A)
    found = call(A, case.rank)
    assert not any(part.requires_grad for part in found[:3])
    assert_is(found, case.A, case.rank)


@every_call
@several
@given(st.data())
def test_expanded_tensors(name, data):
    """One number in the place of all, or one row: rank one."""
    call, case = drawn(name, data)
    row = torch.ones(1, dtype=case.A.dtype) if name == "nystrom" else case.A[0] + 1
    A = row.expand(case.A.shape)
    assert_is(call(A, 1), A, 1)


@every_call
@several
@given(st.data())
def test_the_error_is_what_is_stated(name, data):
    """Where the rank that is asked for is lower than A's: a mean of ten squares is rarely 25 times off."""
    call, case = drawn(name, data)
    rank = data.draw(st.integers(1, min(case.A.shape)), label="lower rank")
    U, S, V, stated = call(case.A, rank)
    A = case.A.double()
    error = float(torch.linalg.matrix_norm(A - (U.double() * S.double()) @ V.double().mT) / torch.linalg.matrix_norm(A))
    least = np.linalg.svd(A.numpy(), compute_uv=False)[rank:]
    least = float(np.linalg.norm(least) / torch.linalg.matrix_norm(A))
    rounding = ROUNDING[case.A.dtype] * 6
    assert error / 5 - rounding <= stated <= 5 * error + rounding
    assert error <= (1.5 if name == "randomized_svd" else 3) * least + rounding


@every_call
@pytest.mark.parametrize("shape", [(2, 3, 3), (1, 3, 3), (0, 3, 3), (0, 3), (3, 0), (0, 0), (3,), ()])
def test_batches_and_empty_matrices_are_refused_by_name(name, shape):
    call, _ = CALLS[name]
    with pytest.raises(ValueError, match="`A` must (be one matrix|not be empty|have shape)"):
        call(torch.ones(shape), 1)


@every_call
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("dtype", [F64, F32])
def test_small_matrices_of_every_rank(name, n, dtype):
    call, _ = CALLS[name]
    for rank in range(n + 1):
        U, values, _ = _factors(n, n, max(rank, 1), seed=rank)
        A = ((U * values) @ U.mT * (rank > 0)).to(dtype)
        for wanted in range(max(rank, 1), n + 1):
            assert_is(call(A, wanted), A, wanted)
