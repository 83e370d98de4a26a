"""Every way to hold a matrix reads the same numbers, and every read is counted."""

import gpytorch
import linear_operator.operators as lo
import numpy as np
import pytest
import scipy.sparse
import torch
from helpers import CountingMatmul, kernel, normal

import rangeformer as rf
from rangeformer.operators import DenseOperator, ProductOperator, ScipyOperator, SparseOperator
from rangeformer.operators.lazy import LazyOperator

N = 17


def symmetric(*batch: int) -> torch.Tensor:
    A = normal(*batch, N, N, seed=3)
    return A + A.mT


def sources() -> dict:
    """name -> (what a user holds, the dense truth, the operator it becomes)"""
    A, x = symmetric(), torch.linspace(0, 1, N, dtype=torch.float64).unsqueeze(-1)
    column = torch.exp(-torch.arange(N, dtype=torch.float64))
    toeplitz = lo.ToeplitzLinearOperator(column)
    noise = torch.linspace(0.1, 0.2, N, dtype=torch.float64)
    covar = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu=1.5)).double()
    with torch.no_grad():
        dense_kernel = covar(x).to_dense()
    batch = symmetric(2, 3)
    factors = lo.DenseLinearOperator(kernel(4)), lo.DenseLinearOperator(kernel(5))
    return {
        "tensor": (A, A, DenseOperator),
        "batched tensor": (batch, batch, DenseOperator),
        "numpy": (A.numpy(), A, DenseOperator),
        "numpy, transposed": (np.asfortranarray(A.numpy()), A, DenseOperator),
        "scipy csr": (scipy.sparse.csr_array(A.numpy()), A, SparseOperator),
        "scipy coo matrix": (scipy.sparse.coo_matrix(A.numpy()), A, SparseOperator),
        "scipy LinearOperator": (scipy.sparse.linalg.aslinearoperator(A.numpy()), A, ScipyOperator),
        "callable": ((lambda v: A @ v, (N, N)), A, ProductOperator),
        "batched callable": ((lambda v: batch @ v, batch.shape), batch, ProductOperator),
        "dense LinearOperator": (lo.DenseLinearOperator(A), A, DenseOperator),
        "added diagonal": (
            lo.AddedDiagLinearOperator(lo.DenseLinearOperator(A), lo.DiagLinearOperator(noise)),
            A + torch.diag(noise),
            DenseOperator,
        ),
        "batched added diagonal": (
            lo.AddedDiagLinearOperator(lo.DenseLinearOperator(batch), lo.DiagLinearOperator(noise.expand(2, 3, N))),
            batch + torch.diag(noise),
            DenseOperator,
        ),
        "sum": (lo.DenseLinearOperator(A) + lo.DenseLinearOperator(2 * A), 3 * A, DenseOperator),
        "scaled": (lo.DenseLinearOperator(A) * torch.tensor(2.5, dtype=torch.float64), 2.5 * A, DenseOperator),
        "lazy kernel": (covar(x), dense_kernel, DenseOperator),
        "lazy kernel with noise": (
            covar(x).add_diagonal(torch.tensor([0.3], dtype=torch.float64)),
            dense_kernel + 0.3 * torch.eye(N, dtype=torch.float64),
            DenseOperator,
        ),
        "toeplitz": (toeplitz, toeplitz.to_dense(), LazyOperator),
        "toeplitz with noise": (
            lo.AddedDiagLinearOperator(toeplitz, lo.DiagLinearOperator(noise)),
            toeplitz.to_dense() + torch.diag(noise),
            LazyOperator,
        ),
        "kronecker": (
            lo.KroneckerProductLinearOperator(*factors),
            torch.kron(factors[0].tensor, factors[1].tensor),
            LazyOperator,
        ),
    }


SOURCES = sources()
READABLE = [name for name, (_, _, kind) in SOURCES.items() if kind not in (ProductOperator, ScipyOperator)]


def columns_of(truth: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, truth.shape[-1], (*truth.shape[:-2], count), generator=generator)


@pytest.mark.parametrize("name", SOURCES)
def test_reads_what_the_dense_matrix_holds(name):
    held, truth, kind = SOURCES[name]
    operator = rf.as_operator(held)
    assert type(operator) is kind
    assert operator.shape == truth.shape
    assert operator.dtype == torch.float64
    vectors = normal(*truth.shape[:-1], 3)
    torch.testing.assert_close(operator.matmul(vectors).detach(), truth @ vectors)
    torch.testing.assert_close(operator.matmul_precise(vectors).detach(), truth @ vectors)
    assert (operator.reads.passes, operator.reads.matvecs, operator.reads.entries) == (2, 6, 0)
    if name not in READABLE:
        assert not operator.has_entries
        return
    n, index, other = truth.shape[-1], columns_of(truth, 5, 1), columns_of(truth, 5, 2)
    torch.testing.assert_close(
        operator.columns(index).detach(), torch.take_along_dim(truth, index.unsqueeze(-2), -1).contiguous()
    )
    torch.testing.assert_close(operator.diagonal().detach(), truth.diagonal(dim1=-2, dim2=-1).contiguous())
    expected = torch.take_along_dim(truth.flatten(-2), index * n + other, -1)
    torch.testing.assert_close(operator.entries(index, other).detach(), expected)
    assert operator.reads.entries == 5 * n + n + 5
    rows, cols = columns_of(truth, 6, 3).unflatten(-1, (2, 3)), columns_of(truth, 8, 4).unflatten(-1, (2, 4))
    flat = truth.flatten(-2).unsqueeze(-2).unsqueeze(-2)
    blocks = torch.take_along_dim(flat, rows.unsqueeze(-1) * n + cols.unsqueeze(-2), -1)
    torch.testing.assert_close(operator.blocks(rows, cols).detach(), blocks)
    assert operator.reads.entries == 6 * n + 5 + 24


@pytest.mark.parametrize("name", READABLE)
def test_reads_rows_for_the_price_of_their_entries(name):
    held, truth, _ = SOURCES[name]
    operator, index = rf.as_operator(held), columns_of(truth, 3, 5)
    expected = torch.take_along_dim(truth, index.unsqueeze(-1), -2)
    torch.testing.assert_close(operator.rows(index).detach(), expected)
    assert (operator.reads.passes, operator.reads.entries) == (0, 3 * truth.shape[-1])


def test_rows_of_the_transpose_are_columns():
    A, index = normal(7, 4), torch.tensor([2, 0])
    for held in (A, scipy.sparse.csr_array(A.numpy())):
        operator = rf.as_operator(held)
        transposed = rf.operators.TransposedOperator(operator)
        torch.testing.assert_close(operator.rows(index), A[index])
        torch.testing.assert_close(transposed.rows(index), A.mT[index])
        torch.testing.assert_close(transposed.columns(index), A[index].mT)
        assert operator.reads.entries == 2 * 4 + 2 * 7 + 2 * 4


@pytest.mark.parametrize("name", ["tensor", "numpy", "scipy csr", "scipy LinearOperator", "added diagonal", "toeplitz"])
def test_multiplies_from_the_left(name):
    held, truth, _ = SOURCES[name]
    operator, vectors = rf.as_operator(held), normal(N, 2)
    torch.testing.assert_close(operator.rmatmul(vectors), truth.mT @ vectors)
    assert (operator.reads.passes, operator.reads.matvecs) == (1, 2)


def test_rectangular_from_both_sides():
    A = normal(7, 4)
    for held in (A, A.numpy(), scipy.sparse.csr_array(A.numpy()), scipy.sparse.linalg.aslinearoperator(A.numpy())):
        operator = rf.as_operator(held)
        assert (operator.num_rows, operator.num_columns) == (7, 4)
        torch.testing.assert_close(operator.matmul(normal(4, 2)), A @ normal(4, 2))
        torch.testing.assert_close(operator.rmatmul(normal(7, 2)), A.mT @ normal(7, 2))


@pytest.mark.parametrize(
    "name", ["added diagonal", "batched added diagonal", "toeplitz with noise", "lazy kernel with noise"]
)
def test_stated_noise_is_known(name):
    held, truth, _ = SOURCES[name]
    noise = rf.as_operator(held).noise
    assert noise.shape == truth.shape[:-1]
    expected = torch.full((N,), 0.3).double() if "lazy" in name else torch.linspace(0.1, 0.2, N, dtype=torch.float64)
    torch.testing.assert_close(noise.detach(), expected.expand(noise.shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["tensor", "numpy", "sparse", "scipy", "linear_operator"])
def test_dtype_in_is_dtype_out(kind, dtype):
    A = symmetric().to(dtype)
    held = {
        "tensor": lambda: A,
        "numpy": lambda: A.numpy(),
        "sparse": lambda: scipy.sparse.csr_array(A.numpy()),
        "scipy": lambda: scipy.sparse.linalg.aslinearoperator(A.numpy()),
        "linear_operator": lambda: lo.DenseLinearOperator(A),
    }[kind]()
    operator = rf.as_operator(held)
    assert operator.dtype == operator.matmul(torch.ones(N, 1, dtype=dtype)).dtype == dtype
    assert operator.matmul_precise(torch.ones(N, 1, dtype=torch.float64)).dtype == torch.float64
    assert operator.device == torch.device("cpu")


def test_precise_products_of_float32_are_float64():
    A = symmetric().float()
    v = normal(N, 2)
    for held in (A, A.numpy(), scipy.sparse.csr_array(A.numpy())):
        torch.testing.assert_close(rf.as_operator(held).matmul_precise(v), A.double() @ v, rtol=1e-14, atol=1e-14)
    noisy = lo.AddedDiagLinearOperator(lo.DenseLinearOperator(A), lo.DiagLinearOperator(torch.full((N,), 0.1)))
    expected = A.double() @ v + torch.tensor(0.1).double() * v
    torch.testing.assert_close(rf.as_operator(noisy).matmul_precise(v), expected, rtol=1e-14, atol=1e-14)


def test_operator_is_returned_as_it_is_and_snapshots_stand_still():
    operator = rf.as_operator(symmetric())
    assert rf.as_operator(operator) is operator
    before = operator.reads.snapshot()
    operator.matmul(torch.ones(N, 4, dtype=torch.float64))
    assert (before.passes, before.matvecs) == (0, 0)
    spent = operator.reads.since(before)
    assert (spent.passes, spent.matvecs, spent.entries) == (1, 4, 0)


def test_callable_is_called_as_often_as_counted():
    spy = CountingMatmul(kernel(40))
    operator = rf.as_operator((spy, (40, 40)))
    solution = rf.linear_solve(operator, normal(40, 3), generator=torch.Generator().manual_seed(0))
    assert solution.num_passes == spy.passes == operator.reads.passes
    assert solution.num_matvecs == spy.matvecs == operator.reads.matvecs
    assert solution.num_entries == 0


def test_read_only_arrays_are_read_without_a_warning():
    A = np.eye(3)
    A.setflags(write=False)
    assert rf.as_operator(A).matmul(torch.ones(3, 1, dtype=torch.float64)).sum() == 3
    assert rf.as_operator(np.eye(3)[::-1]).diagonal().tolist() == [0.0, 1.0, 0.0]


def test_gradients_flow_through_every_read():
    A = symmetric().requires_grad_()
    noise = torch.full((N,), 0.5, dtype=torch.float64, requires_grad=True)
    operator = rf.as_operator(lo.AddedDiagLinearOperator(lo.DenseLinearOperator(A), lo.DiagLinearOperator(noise)))
    assert operator.requires_grad
    index = torch.tensor([1, 1, 4])
    dense = A + torch.diag(noise)
    ours = operator.columns(index).square().sum() + operator.diagonal().exp().sum()
    ours = (
        ours
        + operator.entries(index, torch.tensor([1, 2, 4])).square().sum()
        + operator.matmul(torch.eye(N).double()).sin().sum()
    )
    truth = dense[:, index].square().sum() + dense.diagonal().exp().sum()
    truth = truth + dense[index, torch.tensor([1, 2, 4])].square().sum() + dense.sin().sum()
    for a, b in zip(torch.autograd.grad(ours, (A, noise)), torch.autograd.grad(truth, (A, noise)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("held", "error", "message"),
    [
        ("matrix", TypeError, "`A` must be a torch tensor, .* Got str"),
        (torch.ones(3, 3, dtype=torch.complex64), TypeError, "`A` must be real. Got torch.complex64"),
        (torch.eye(3).to_sparse(), TypeError, "`A` must be a dense tensor. Got layout torch.sparse_coo"),
        (scipy.sparse.csr_array(np.eye(3) * 1j), TypeError, "`A` must be real, .* Got a sparse matrix of complex128"),
        (
            scipy.sparse.linalg.aslinearoperator(np.eye(3, dtype=complex)),
            TypeError,
            "scipy LinearOperator of complex128",
        ),
        (lo.DenseLinearOperator(torch.eye(3, dtype=torch.int64)), TypeError, "Got a LinearOperator of torch.int64"),
        (torch.ones(3), ValueError, r"`A` must have shape \(\*batch, m, n\). Got \(3,\)"),
        (torch.ones(0, 0), ValueError, r"`A` must not be empty. Got shape \(0, 0\)"),
        (np.ones((2, 0)), ValueError, "`A` must not be empty"),
        (scipy.sparse.csr_array((0, 3)), ValueError, "`A` must not be empty"),
        ((lambda v: v, (3,)), ValueError, r"`A` must have shape \(\*batch, m, n\)"),
        ((lambda v: v, (0, 0)), ValueError, "`A` must not be empty"),
        ((lambda v: v, 3), TypeError, r"pair \(matmul, shape\) with a tuple of integers as shape. Got 3"),
        ((lambda v: v, (3.0, 3.0)), TypeError, "tuple of integers"),
        (torch.full((3, 3), torch.nan), ValueError, "`A` must be finite. Got 9 NaN or infinite entries"),
        (np.full((2, 2), np.inf), ValueError, "`A` must be finite. Got 4 NaN"),
        (
            scipy.sparse.csr_array(np.array([[1.0, np.nan], [0.0, 1.0]])),
            ValueError,
            "NaN or infinite entries in a sparse",
        ),
        (lo.DenseLinearOperator(torch.full((3, 3), torch.nan)), ValueError, "`A` must be finite. Got 9"),
    ],
)
def test_what_cannot_be_read_says_why(held, error, message):
    with pytest.raises(error, match=message):
        rf.as_operator(held)


def test_huge_finite_entries_are_finite():
    assert rf.as_operator(torch.full((3, 3), 1e308, dtype=torch.float64)).num_rows == 3
    assert rf.as_operator(scipy.sparse.csr_array(np.full((3, 3), 3e38, dtype=np.float32))).num_rows == 3


def test_callable_must_work_in_a_float_type():
    with pytest.raises(TypeError, match="`dtype` must be torch.float32 or torch.float64. Got torch.int64"):
        rf.as_operator((lambda v: v, (3, 3)), dtype=torch.int64)


def test_callable_of_wrong_shape_or_type():
    operator = rf.as_operator((lambda v: v[:-1], (3, 3)))
    with pytest.raises(ValueError, match=r"must return a tensor of shape \(3, 1\) .* Got \(2, 1\)"):
        operator.matmul(torch.ones(3, 1, dtype=torch.float64))
    operator = rf.as_operator((lambda v: v.numpy(), (3, 3)))
    with pytest.raises(ValueError, match="Got ndarray"):
        operator.matmul(torch.ones(3, 1, dtype=torch.float64))


def test_products_alone_have_no_entries():
    operator = rf.as_operator((lambda v: v, (3, 3)))
    for read in (lambda: operator.columns(torch.tensor([0])), operator.diagonal):
        with pytest.raises(NotImplementedError, match="known through products only: .* cannot be read"):
            read()
    with pytest.raises(NotImplementedError, match="entries cannot be read"):
        operator.entries(torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(NotImplementedError, match="cannot be multiplied from the left"):
        operator.rmatmul(torch.ones(3, 1, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_a_matrix_read_as_a_whole_is_counted(dtype):
    A = torch.diag(torch.arange(1.0, 6.0))
    for operator in (rf.as_operator(A), rf.as_operator(A.numpy()), rf.as_operator(scipy.sparse.csr_array(A.numpy()))):
        found = operator.to_dense(dtype)
        assert torch.equal(found, A.to(dtype or operator.dtype))
        assert (operator.reads.entries, operator.reads.passes) == (25, 0)
