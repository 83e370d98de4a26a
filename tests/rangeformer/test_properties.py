"""What linear algebra promises of solves and log-determinants, on random systems and against dense float64 oracles.

Some 400 cases, and 160 more in `tests/sketching/test_sketching_properties.py`. `RANGEFORMER_EXAMPLES` is the number of
cases of each property; the nightly run of 20,000 is

    RANGEFORMER_EXAMPLES=400 python -m pytest tests/rangeformer/test_properties.py \
        tests/sketching/test_sketching_properties.py
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from helpers import conditioned, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import rangeformer as rf

EXAMPLES = int(os.environ.get("RANGEFORMER_EXAMPLES", "11"))
F32, F64 = torch.float32, torch.float64
RTOL = {F64: 1e-10, F32: 1e-5}
# within what float32 resolves at its rtol
CONDITIONS = {F64: [1.0, 1e1, 1e2, 1e3, 1e4], F32: [1.0, 3.0, 10.0, 30.0]}
MOST_EXPONENT = {F64: 200, F32: 30}

several = settings(max_examples=EXAMPLES, derandomize=True, deadline=None)


@dataclass(frozen=True)
class System:
    """A x = b with A positive definite, eigenvalues between 1 / cond and 1."""

    A: Tensor
    b: Tensor
    cond: float
    seed: int = 0

    def __repr__(self) -> str:
        return f"System(shape={tuple(self.b.shape)}, {self.A.dtype}, cond={self.cond:g}, seed={self.seed})"

    @property
    def rtol(self) -> float:
        return RTOL[self.A.dtype]


@st.composite
def systems(draw, dtypes=(F64, F32)) -> System:
    """n = 1, 2, 3 half of the time; one right-hand side, or up to five, which may be more than there are rows."""
    dtype = draw(st.sampled_from(dtypes))
    n = draw(st.one_of(st.integers(1, 3), st.integers(4, 40), st.just(70)))
    columns = draw(st.sampled_from([(), (1,), (3,), (5,)]))
    cond, seed = draw(st.sampled_from(CONDITIONS[dtype])), draw(st.integers(0, 10**6))
    A = conditioned(n, cond, seed=seed, dtype=dtype)
    return System(A, normal(n, *columns, seed=seed + 1, dtype=dtype), cond if n > 1 else 1.0, seed)


def _solve(A, b, rtol: float) -> dict[str, Tensor]:
    return {"x": rf.linear_solve(A, b, rtol=rtol).value}


def _learned_solve(A, b, rtol: float) -> dict[str, Tensor]:
    return {"x": rf.linear_solve(A, b, rtol=rtol, method="learned-krylov").value}


def _logdet(A, b, rtol: float) -> dict[str, Tensor]:
    return {"logdet": rf.logdet(A).value}


def _both(A, b, rtol: float) -> dict[str, Tensor]:
    result = rf.inv_quad_logdet(A, b, rtol=rtol)
    return {"x": result.solution.value, "inv_quad": result.inv_quad, "logdet": result.logdet}


CALLS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "linear_solve": _solve,
    "learned-krylov": _learned_solve,
    "logdet": _logdet,
    "inv_quad_logdet": _both,
}
every_call = pytest.mark.parametrize("name", CALLS)


def oracle(A: Tensor, b: Tensor) -> dict[str, Tensor]:
    """The same of the stored numbers, dense and in float64."""
    dense, right = A.detach().double().numpy(), b.detach().double().numpy()
    x = np.linalg.solve(dense, right)
    numbers = {"x": x, "inv_quad": (right * x).sum(), "logdet": np.linalg.slogdet(dense)[1]}
    return {key: torch.as_tensor(value) for key, value in numbers.items()}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], s: System) -> None:
    """Within what the residual's tolerance and the condition allow; the log-determinant, within rounding."""
    eps, n = torch.finfo(s.A.dtype).eps, len(s.A)
    for key, value in found.items():
        assert value.dtype == s.A.dtype
        wanted = expected[key].double()
        assert value.shape == wanted.shape, key
        error = torch.linalg.vector_norm(value.detach().double() - wanted)
        size = torch.linalg.vector_norm(wanted)
        rounding = eps * (100 * max(float(size), n) + n * s.cond)
        allowed = rounding if key == "logdet" else 3 * s.cond * s.rtol * float(size)
        assert error <= allowed, f"{key}: off by {error:.1e}, allowed {allowed:.1e}"


@every_call
@several
@given(systems())
def test_the_answer_is_the_oracles(name, s):
    assert_near(CALLS[name](s.A, s.b, s.rtol), oracle(s.A, s.b), s)


@every_call
@several
@given(systems(), st.integers(0, 10**6))
def test_order_of_the_rows(name, s, seed):
    order = torch.randperm(len(s.A), generator=torch.Generator().manual_seed(seed))
    found = CALLS[name](s.A[order][:, order], s.b[order], s.rtol)
    expected = oracle(s.A, s.b)
    assert_near(found, {**expected, "x": expected["x"][order]}, s)


@every_call
@several
@given(systems(), st.data())
def test_powers_of_two(name, s, data):
    most = MOST_EXPONENT[s.A.dtype]
    of_A, of_b = (data.draw(st.integers(-most, most), label=label) for label in ("exponent of A", "exponent of b"))
    found = CALLS[name](s.A * 2.0**of_A, s.b * 2.0**of_b, s.rtol)
    expected, n = oracle(s.A, s.b), len(s.A)
    scaled = {
        "x": expected["x"] * 2.0 ** (of_b - of_A),
        "inv_quad": expected["inv_quad"] * 2.0 ** (2 * of_b - of_A),
        "logdet": expected["logdet"] + n * of_A * np.log(2),
    }
    assert_near(found, scaled, s)


@every_call
@several
@given(systems(), st.sampled_from([2.0**-6, 0.25, 1.0, 64.0]))
def test_a_multiple_of_the_identity(name, s, c):
    """Of A + c I, from the eigenvectors of A."""
    values, Q = np.linalg.eigh(s.A.double().numpy())
    weights = Q.T @ s.b.double().numpy()
    spread = (values + c).reshape(-1, *(1,) * (s.b.dim() - 1))
    numbers = {
        "x": Q @ (weights / spread),
        "inv_quad": (weights**2 / spread).sum(),
        "logdet": np.log(values + c).sum(),
    }
    found = CALLS[name](s.A + c * torch.eye(len(s.A), dtype=s.A.dtype), s.b, s.rtol)
    # The sum on the diagonal is rounded, which no answer can make up for.
    rounding = 10 * (1 + c) * torch.finfo(s.A.dtype).eps / s.rtol
    allowed = System(s.A, s.b, s.cond * (1 + rounding))
    assert_near(found, {key: torch.as_tensor(value) for key, value in numbers.items()}, allowed)


@every_call
@several
@given(systems(), st.sampled_from([(1,), (3,), (2, 2)]), st.integers(0, 20))
def test_a_batch_is_a_loop(name, s, batch, spread):
    """Matrices of different condition, and of sizes that differ by powers of two."""
    count, n, b = int(np.prod(batch)), len(s.A), s.b.reshape(len(s.b), -1)
    conds = [s.cond if i % 2 else 1.0 for i in range(count)]
    matrices = [conditioned(n, cond, seed=i, dtype=s.A.dtype) * 2.0 ** (i * spread) for i, cond in enumerate(conds)]
    rights = [b * 2.0**-i for i in range(count)]
    A, right = (torch.stack(parts).unflatten(0, batch) for parts in (matrices, rights))
    found = CALLS[name](A, right, s.rtol)
    for i, (matrix, column) in enumerate(zip(matrices, rights, strict=True)):
        one = {key: value.flatten(0, len(batch) - 1)[i] for key, value in found.items()}
        assert_near(one, oracle(matrix, column), System(matrix, column, conds[i]))


@every_call
@several
@given(systems(dtypes=(F32,)))
def test_float32_is_float64_to_its_accuracy(name, s):
    wide = CALLS[name](s.A.double(), s.b.double(), RTOL[F64])
    assert_near(CALLS[name](s.A, s.b, s.rtol), wide, s)


def _strided(values: Tensor) -> Tensor:
    """Every second row and column of a larger tensor."""
    larger = torch.full(tuple(2 * size + 1 for size in values.shape), torch.nan, dtype=values.dtype)
    view = larger[tuple(slice(1, None, 2) for _ in values.shape)]
    return view.copy_(values)


def _reversed(values: Tensor) -> np.ndarray:
    """Numbers with negative strides."""
    return np.ascontiguousarray(np.flip(values.numpy()))[tuple(slice(None, None, -1) for _ in values.shape)]


def _read_only(values: Tensor) -> np.ndarray:
    array = values.numpy().copy()
    array.flags.writeable = False
    return array


LAYOUTS: dict[str, Callable[[Tensor], Tensor | np.ndarray]] = {
    "Fortran": lambda values: values.mT.contiguous().mT if values.dim() > 1 else values,
    "every second entry": _strided,
    "NumPy, Fortran": lambda values: np.asfortranarray(values.numpy()),
    "NumPy, backwards": _reversed,
    "NumPy, read-only": _read_only,
    "a sub-class": lambda values: torch.nn.Parameter(values, requires_grad=False),
}


@every_call
@several
@given(systems(), st.sampled_from(list(LAYOUTS)), st.sampled_from(list(LAYOUTS)))
def test_order_in_memory(name, s, of_A, of_b):
    A, b = LAYOUTS[of_A](s.A), LAYOUTS[of_b](s.b)
    found = CALLS[name](A, b, s.rtol)
    assert_near({key: torch.as_tensor(value) for key, value in found.items()}, oracle(s.A, s.b), s)
    for held, values in ((A, s.A), (b, s.b)):
        assert np.array_equal(held if isinstance(held, np.ndarray) else held.numpy(), values.numpy())


@every_call
@several
@given(systems(), st.sampled_from([(1,), (3,), (2, 2)]))
def test_expanded_tensors(name, s, batch):
    """One matrix and one constant column in the place of many; a batch needs columns."""
    b = torch.ones(1, 1, dtype=s.A.dtype).expand(len(s.A), 2)
    found = CALLS[name](s.A.expand(*batch, *s.A.shape), b.expand(*batch, *b.shape), s.rtol)
    for i in np.ndindex(*batch):
        assert_near({key: value[i] for key, value in found.items()}, oracle(s.A, b), s)


def gradients(A: Tensor, b: Tensor, weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Of sum(weights * answers) in A (its symmetric part) and in b, from the formulas; float64."""
    A, b, inverse = A.double(), b.double().reshape(len(b), -1), torch.from_numpy(np.linalg.inv(A.double().numpy()))
    of_A, of_b, x = torch.zeros_like(A), torch.zeros_like(b), inverse @ b
    if "x" in weights:
        adjoint = inverse @ weights["x"].double().reshape(b.shape)
        of_A, of_b = of_A - adjoint @ x.mT, of_b + adjoint
    if "inv_quad" in weights:
        of_A, of_b = of_A - weights["inv_quad"] * x @ x.mT, of_b + 2 * weights["inv_quad"] * x
    if "logdet" in weights:
        of_A = of_A + weights["logdet"] * inverse
    return (of_A + of_A.mT) / 2, of_b


@every_call
@several
@given(systems(), st.booleans(), st.booleans())
def test_gradients_flow_to_what_requires_them(name, s, of_A, of_b):
    A, b = s.A.clone().requires_grad_(of_A), s.b.clone().requires_grad_(of_b)
    found = CALLS[name](A, b, s.rtol)
    assert_near(found, oracle(s.A, s.b), s)
    if name == "inv_quad_logdet":
        # its solution is documented as not differentiable
        assert not found.pop("x").requires_grad
    weights = {key: normal(*value.shape, seed=5, dtype=s.A.dtype) for key, value in found.items()}
    reached = {"A": of_A, "b": of_b and name != "logdet"}
    total = sum((weights[key] * value).sum() for key, value in found.items())
    assert total.requires_grad == any(reached.values())
    if total.requires_grad:
        total.backward()
    for parameter, expected, key in zip((A, b), gradients(s.A, s.b, weights), reached, strict=True):
        if not reached[key]:
            assert parameter.grad is None
            continue
        gradient = parameter.grad.double()
        gradient = (gradient + gradient.mT) / 2 if key == "A" else gradient.reshape(expected.shape)
        # A gradient has two solves in it.
        allowed = 10 * s.cond * s.rtol * float(expected.norm())
        assert float((gradient - expected).norm()) <= allowed, key


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 3, 3), (0, 0), (2, 0, 0)])
@every_call
def test_empty_batches_are_refused_by_name(name, shape):
    with pytest.raises(ValueError, match="`A` must not be empty. Got shape"):
        CALLS[name](torch.ones(shape), torch.ones(*shape[:-1], 1), 1e-6)


@pytest.mark.parametrize("method", ["auto", "learned-krylov"])
def test_no_right_hand_sides_are_refused_by_name(method):
    with pytest.raises(ValueError, match=r"`rhs` must have shape .* Got \(3, 0\)"):
        rf.linear_solve(torch.eye(3), torch.ones(3, 0), method=method)
