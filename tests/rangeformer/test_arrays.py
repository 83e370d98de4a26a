"""NumPy arrays, lists and other number types: converted as NumPy and SciPy users expect, and answered in kind."""

import numpy as np
import pytest
import scipy.sparse
import torch
from helpers import kernel

import rangeformer as rf

N = 30


@pytest.fixture(scope="module")
def A() -> np.ndarray:
    return kernel(N, noise=0.1).numpy()


def test_numpy_in_numpy_out(A):
    b = np.ones(N)
    solution = rf.linear_solve(A, b)
    assert type(solution.value) is type(solution.residual_norms) is type(solution.converged) is np.ndarray
    np.testing.assert_allclose(solution.value, np.linalg.solve(A, b), rtol=1e-5)
    tensors = rf.linear_solve(torch.from_numpy(A), torch.from_numpy(b))
    assert isinstance(tensors.value, torch.Tensor)
    np.testing.assert_array_equal(solution.value, tensors.value.numpy())


def test_the_right_hand_side_decides_what_comes_back(A):
    sparse = scipy.sparse.csr_array(A)
    assert isinstance(rf.linear_solve(sparse, np.ones(N)).value, np.ndarray)
    assert isinstance(rf.linear_solve(A, torch.ones(N, dtype=torch.float64)).value, torch.Tensor)
    assert isinstance(rf.linear_solve(torch.from_numpy(A), np.ones((N, 2))).value, np.ndarray)
    assert isinstance(rf.linear_solve(torch.from_numpy(A), [1.0] * N).value, np.ndarray)


def test_every_driver(A):
    b = np.ones((N, 2))
    np.testing.assert_allclose(rf.logdet(A).value, np.linalg.slogdet(A)[1], rtol=1e-8)
    both = rf.inv_quad_logdet(A, b)
    assert type(both.inv_quad) is type(both.solution.value) is np.ndarray
    np.testing.assert_allclose(both.inv_quad, np.trace(b.T @ np.linalg.solve(A, b)), rtol=1e-6)
    np.testing.assert_allclose(rf.eigvalsh(A).value, np.linalg.eigvalsh(A), rtol=1e-8)
    np.testing.assert_allclose(rf.eigsh(A, 2).values, np.linalg.eigvalsh(A)[:-3:-1], rtol=1e-8)
    np.testing.assert_allclose(rf.svdvals(A[:, :9]).value, np.linalg.svd(A[:, :9], compute_uv=False), rtol=1e-8)
    np.testing.assert_allclose(rf.lstsq(A[:, :9], b).value, np.linalg.lstsq(A[:, :9], b)[0], rtol=1e-6)
    np.testing.assert_allclose(rf.trace(A).value, np.trace(A))
    np.testing.assert_allclose(rf.inverse_trace(A).value, np.trace(np.linalg.inv(A)), rtol=1e-6)
    np.testing.assert_allclose(rf.inverse_matmul(A, np.eye(N)).value, np.linalg.inv(A), rtol=1e-4, atol=1e-5)
    assert isinstance(rf.sample_gaussian(A, 3), np.ndarray)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, np.bool_])
def test_integers_and_booleans_become_float64(dtype):
    A = np.eye(4, dtype=dtype)
    for matrix in (A, torch.from_numpy(A), scipy.sparse.csr_array(A)):
        assert rf.as_operator(matrix).dtype == torch.float64
    np.testing.assert_allclose(rf.linear_solve(A, np.arange(4)).value, np.arange(4.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype):
    A = torch.eye(4, dtype=dtype, requires_grad=True)
    operator = rf.as_operator(A)
    assert operator.dtype == torch.float32
    assert operator.requires_grad
    rf.logdet(A).value.backward()
    assert torch.equal(A.grad, torch.eye(4, dtype=dtype))


def test_lists_and_integers_take_the_precision_of_what_they_meet():
    A = np.eye(3, dtype=np.float32)
    assert rf.linear_solve(A, [1, 2, 3]).value.dtype == np.float32
    assert rf.linear_solve(A, np.arange(3)).value.dtype == np.float32
    assert rf.linear_solve(torch.eye(3), [1, 2, 3]).value.dtype == np.float32
    assert rf.linear_solve([[1, 0], [0, 1]], [1, 2]).value.dtype == np.float64
    assert rf.linear_solve(scipy.sparse.csr_array(A), [1, 2, 3]).value.dtype == np.float32


def test_two_precisions_meet_in_the_wider_one():
    assert rf.linear_solve(np.eye(3, dtype=np.float32), np.ones(3)).value.dtype == np.float64
    assert rf.linear_solve(np.eye(3), np.ones(3, dtype=np.float32)).value.dtype == np.float64


def test_foreign_byte_orders_strides_and_read_only_memory(A):
    expected = rf.linear_solve(A, np.ones(N)).value
    frozen = A.copy()
    frozen.flags.writeable = False
    for matrix in (A.astype(">f8"), A.copy(order="F"), np.repeat(A, 2, 0)[::2], frozen):
        np.testing.assert_allclose(rf.linear_solve(matrix, np.ones(N)[::-1]).value, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("A", "error", "message"),
    [
        (np.eye(3) * 1j, TypeError, "`A` must be real"),
        (torch.eye(3, dtype=torch.complex64), TypeError, "`A` must be real"),
        (np.ma.masked_array(np.eye(3), mask=np.eye(3)), ValueError, r"`A` must not be masked.*\.filled"),
        ([[1.0, 2.0], [3.0]], ValueError, "`A` must have rows of one length"),
        ([["a", "b"], ["c", "d"]], TypeError, "`A` must hold numbers"),
        ([[None]], TypeError, "`A` must hold numbers"),
    ],
)
def test_what_is_no_real_matrix_is_refused(A, error, message):
    with pytest.raises(error, match=message):
        rf.logdet(A)
    if not isinstance(A, torch.Tensor):  # whose type the annotations refuse already
        with pytest.raises(error, match=message.replace("`A`", "`rhs`")):
            rf.linear_solve(np.eye(3), A)


def test_wrong_calls_fail_as_python_says():
    with pytest.raises(TypeError, match="rhs"):
        rf.linear_solve(np.eye(3))
    with pytest.raises(TypeError, match="unexpected keyword"):
        rf.linear_solve(np.eye(3), np.ones(3), tolerance=1)
