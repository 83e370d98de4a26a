"""Matrices that break naive code, each with a right-hand side.

`HOSTILE` maps a name to a builder: of float64 or float32 it makes what a call is given and the numbers it stands for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

import rangeformer as rf
from tests.helpers import conditioned, kernel, normal, with_spectrum

N, MANY = 24, 260
"""Rows of most matrices, and of some: beyond 256, log-determinants are estimated from random probes."""
DTYPES = {"float64": torch.float64, "float32": torch.float32}
_SCALES = {
    "subnormal entries": (1e-310, 1e-40),
    "entries 1e-300, in float32 1e-37": (1e-300, 1e-37),
    "entries 1e-200, in float32 1e-25": (1e-200, 1e-25),
    "entries 1e200, in float32 1e25": (1e200, 1e25),
    "entries 1e300, in float32 1e37": (1e300, 1e37),
}


class OwnError(Exception):
    """What a product of the caller's raises; a library lets it through."""


@dataclass(frozen=True)
class Hostile:
    """A matrix and how it is handed over.

    Attributes:
        matrix: `(n, n)` the numbers themselves.
        given: What a call gets; the matrix if None.
        rhs: `(n,)` a right-hand side.
    """

    matrix: Tensor
    given: Any = None
    rhs: Tensor = field(default=None)  # pyright: ignore[reportAssignmentType]

    def __post_init__(self):
        if self.given is None:
            object.__setattr__(self, "given", self.matrix)
        if self.rhs is None:
            object.__setattr__(self, "rhs", normal(len(self.matrix), seed=7, dtype=self.matrix.dtype))


def _spectrum(*, last: float, n: int = N) -> Callable[[torch.dtype], Hostile]:
    """Eigenvalues between 0.1 and 1, and one other."""
    values = torch.cat([torch.linspace(1, 0.1, n - 1, dtype=torch.float64), torch.tensor([last], dtype=torch.float64)])
    return lambda dtype: Hostile(with_spectrum(values, dtype=dtype))


def _conditioned(cond: float, n: int = N) -> Callable[[torch.dtype], Hostile]:
    return lambda dtype: Hostile(conditioned(n, cond, dtype=dtype))


def _dense(entries: Callable[[], Tensor]) -> Callable[[torch.dtype], Hostile]:
    return lambda dtype: Hostile(entries().to(dtype))


def _path(n: int = N) -> Tensor:
    """The Laplacian of a path: whole numbers, and exactly singular."""
    A = 2 * torch.eye(n, dtype=torch.float64)
    A[0, 0] = A[-1, -1] = 1
    off = torch.ones(n - 1, dtype=torch.float64).diag(1)
    return A - off - off.mT


def _consistent(dtype: torch.dtype) -> Hostile:
    A = _path().to(dtype)
    return Hostile(A, rhs=A @ torch.arange(N, dtype=dtype).square())


def _low_rank() -> Tensor:
    W = (4 * normal(N, 3)).round()
    return W @ W.mT


def _duplicated() -> Tensor:
    """A kernel with one point three times, without noise."""
    twice = torch.arange(N)
    twice[3] = twice[17] = 8
    A = kernel(N, noise=0.0)
    return A[twice][:, twice]


def _scaled(digits64: float, digits32: float) -> Callable[[torch.dtype], Hostile]:
    """D S D with S well-conditioned and D between 10^-digits and 10^digits."""

    def build(dtype: torch.dtype) -> Hostile:
        digits = digits64 if dtype == torch.float64 else digits32
        d = 10 ** (digits * (2 * torch.rand(N, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 1))
        return Hostile((d.unsqueeze(-1) * conditioned(N, 10) * d).to(dtype))

    return build


def _sized(scale64: float, scale32: float) -> Callable[[torch.dtype], Hostile]:
    def build(dtype: torch.dtype) -> Hostile:
        return Hostile((conditioned(N, 10) * (scale64 if dtype == torch.float64 else scale32)).to(dtype))

    return build


def _with_entries(*places: tuple[int, int], value: float) -> Callable[[torch.dtype], Hostile]:
    def build(dtype: torch.dtype) -> Hostile:
        A = conditioned(N, 10, dtype=dtype)
        for place in places:
            A[place] = value
        return Hostile(A)

    return build


def _asymmetric(size: float | None) -> Callable[[torch.dtype], Hostile]:
    """Relative perturbations of all entries, of the size of rounding if None."""

    def build(dtype: torch.dtype) -> Hostile:
        A = conditioned(N, 10, dtype=dtype)
        return Hostile(A * (1 + (torch.finfo(dtype).eps if size is None else size) * normal(N, N, dtype=dtype)))

    return build


def _one_entry_off(dtype: torch.dtype) -> Hostile:
    A = conditioned(N, 10, dtype=dtype)
    A[5, 11] += 1e-4
    return Hostile(A)


# Products that do not behave. Each is made anew for every call: some count how often they were asked.


def _raises(A: Tensor, vectors: Tensor, count: int) -> Tensor:
    raise OwnError("no product today")


def _raises_later(A: Tensor, vectors: Tensor, count: int) -> Tensor:
    return A @ vectors if count < 3 else _raises(A, vectors, count)


def _drifts(A: Tensor, vectors: Tensor, count: int) -> Tensor:
    return A @ vectors * (1 + 0.01 * count)


def _nan_later(A: Tensor, vectors: Tensor, count: int) -> Tensor:
    return A @ vectors * (1 if count < 2 else math.nan)


def _other_dtype(A: Tensor, vectors: Tensor, count: int) -> Tensor:
    return (A @ vectors).to(torch.float32 if A.dtype == torch.float64 else torch.float64)


def _in_place(A: Tensor, vectors: Tensor, count: int) -> Tensor:
    return vectors.copy_(A @ vectors)


PRODUCTS: dict[str, Callable[[Tensor, Tensor, int], Any]] = {
    "raises": _raises,
    "raises later": _raises_later,
    "1 % larger with every call": _drifts,
    "NaN later": _nan_later,
    "too short": lambda A, vectors, count: (A @ vectors)[:-1],
    "a vector": lambda A, vectors, count: (A @ vectors)[:, 0],
    "of another float type": _other_dtype,
    "of integers": lambda A, vectors, count: (A @ vectors).long(),
    "None": lambda A, vectors, count: None,
    "a NumPy array": lambda A, vectors, count: (A @ vectors).numpy(),
    "on another device": lambda A, vectors, count: (A @ vectors).to("meta"),
    "written over the vectors": _in_place,
}


def _counted(A: Tensor, faulty: Callable) -> Callable[[Tensor], Any]:
    calls = []

    def product(vectors: Tensor) -> Any:
        calls.append(None)
        return faulty(A, vectors, len(calls) - 1)

    return product


def _pair(faulty: Callable) -> Callable[[torch.dtype], Hostile]:
    """As `(matmul, shape)`, whose type is the right-hand side's or, without one, said to `as_operator`."""

    def build(dtype: torch.dtype) -> Hostile:
        A = conditioned(N, 10, dtype=dtype)
        return Hostile(A, given=rf.as_operator((_counted(A, faulty), (N, N)), dtype=dtype))

    return build


def _products_of(name: str) -> Callable[[torch.dtype], Hostile]:
    """Products that are as they should be: without entries there is no dense factorisation to fall back on."""

    def build(dtype: torch.dtype) -> Hostile:
        A, n = HOSTILE[name](dtype).matrix, len(HOSTILE[name](dtype).matrix)
        return Hostile(A, given=rf.as_operator((A.matmul, (n, n)), dtype=dtype))

    return build


def _scipy(faulty: Callable) -> Callable[[torch.dtype], Hostile]:
    """As a SciPy operator, which can be multiplied from both sides."""

    def build(dtype: torch.dtype) -> Hostile:
        A = conditioned(N, 10, dtype=dtype)
        product = _counted(A, faulty)

        def multiply(vectors: np.ndarray) -> np.ndarray:
            return np.asarray(product(torch.from_numpy(np.ascontiguousarray(vectors))))

        kind = np.float64 if dtype == torch.float64 else np.float32
        options: dict[str, Any] = {
            "dtype": kind,
            "matvec": multiply,
            "rmatvec": multiply,
            "matmat": multiply,
            "rmatmat": multiply,
        }
        return Hostile(A, given=LinearOperator((N, N), **options))

    return build


_ALSO_AS_PRODUCTS = [
    "well-conditioned",
    "indefinite by 1e-12",
    "indefinite by 1",
    "singular",
    "rank 3",
    "zero",
    "condition 1e8",
    "condition 1e16",
    "D S D, D within 1e-6 ... 1e6",
    "entries 1e-300, in float32 1e-37",
    "entries 1e300, in float32 1e37",
    "n = 260, condition 1e12",
    "n = 260, indefinite by 1",
    "n = 260, singular",
]
HOSTILE: dict[str, Callable[[torch.dtype], Hostile]] = {
    "well-conditioned": _conditioned(10),
    "indefinite by 1e-12": _spectrum(last=-1e-12),
    "indefinite by 1": _spectrum(last=-1.0),
    "negative definite": lambda dtype: Hostile(-conditioned(N, 10, dtype=dtype)),
    "zero diagonal": _dense(lambda: conditioned(N, 10) - conditioned(N, 10).diagonal().diag()),
    "singular": _dense(_path),
    "singular, right-hand side in the range": _consistent,
    "rank 3": _dense(_low_rank),
    "zero": _dense(lambda: torch.zeros(N, N)),
    "duplicate rows": _dense(_duplicated),
    "constant": _dense(lambda: torch.ones(N, N)),
    **{f"condition 1e{power}": _conditioned(10.0**power) for power in (0, 4, 8, 12, 16)},
    "D S D, D within 1e-6 ... 1e6": _scaled(6, 6),
    "D S D, D within 1e-60 ... 1e60, in float32 1e-12 ... 1e12": _scaled(60, 12),
    **{name: _sized(*scales) for name, scales in _SCALES.items()},
    "NaN": _with_entries((4, 9), (9, 4), value=math.nan),
    "infinity": _with_entries((4, 9), (9, 4), value=math.inf),
    "infinity on the diagonal": _with_entries((4, 4), value=math.inf),
    "asymmetric by rounding": _asymmetric(None),
    "asymmetric": _asymmetric(0.3),
    "asymmetric by 1e-4 in one entry": _one_entry_off,
    "1 by 1, zero": _dense(lambda: torch.zeros(1, 1)),
    "1 by 1, negative": _dense(lambda: -torch.ones(1, 1)),
    "n = 260, condition 1e4": _conditioned(1e4, MANY),
    "n = 260, condition 1e12": _conditioned(1e12, MANY),
    "n = 260, indefinite by 1": _spectrum(last=-1.0, n=MANY),
    "n = 260, singular": _dense(lambda: _path(MANY)),
    **{f"products of: {name}": _products_of(name) for name in _ALSO_AS_PRODUCTS},
    **{f"product: {name}": _pair(faulty) for name, faulty in PRODUCTS.items()},
    **{f"SciPy product: {name}": _scipy(PRODUCTS[name]) for name in list(PRODUCTS)[:4]},
}
