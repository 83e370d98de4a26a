"""Solvers as values: what an iterative solver must be able to do, and the loop that runs one.

A solver owns no stopping rule of the caller, no residual of record and no count: `rangeformer.solvers.refinement`
recomputes every residual from the returned value, whoever produced it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rangeformer.krylov.conjugate_gradients import Iterate
from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.shapes import Bool, Float, Tensor
from rangeformer.validation import check_count, check_tolerance

FALLBACKS = ("dense", None)


@dataclass(frozen=True)
class Stopping:
    """When to stop, and what to do where that was not reached.

    Attributes:
        rtol: Largest ||rhs - A x|| / ||rhs|| accepted, for the worst column.
        max_iterations: Passes over A at most, all refinements together.
        fallback: "dense" (a dense factorisation in float64 where A is small enough) or None.
        error_rtol: Relative error of x that is aimed at beyond rtol, as far as A's precision goes, where A's noise is
            known and bounds its eigenvalues from below; None asks for nothing.

    Raises:
        ValueError: A value that is none of these.
    """

    rtol: float = 1e-6
    max_iterations: int = 1000
    fallback: str | None = "dense"
    error_rtol: float | None = None

    def __post_init__(self):
        """Check all of it before any work."""
        check_tolerance("rtol", self.rtol)
        check_count("max_iterations", self.max_iterations, least=1)
        if self.error_rtol is not None:
            check_tolerance("error_rtol", self.error_rtol)
        if self.fallback not in FALLBACKS:
            raise ValueError(f"`fallback` must be one of {FALLBACKS}. Got {self.fallback!r}.")


@dataclass(frozen=True)
class System:
    """A x = rhs as an iterative solver meets it.

    Attributes:
        operator: A.
        rhs: `(*batch, n, k)`, columns of norm about one, in A's dtype.
        preconditioner: P.
        targets: `(*batch, k)` absolute residual norms; infinite for columns that need nothing.
    """

    operator: MatrixOperator
    rhs: Float[Tensor, "*batch n k"]
    preconditioner: Preconditioner
    targets: Float[Tensor, "*batch k"]


class Solver(ABC):
    """An iterative method as an immutable value; all that changes is in the state that `init` returns.

    A class of your own may be passed wherever a method's name is expected.

    Attributes:
        name: How results call it.
        max_columns: Columns solved together at most; None for all.
    """

    name: ClassVar[str]
    max_columns: ClassVar[int | None] = None

    @abstractmethod
    def init(self, system: System) -> Any:
        """The state before the first iteration."""

    @abstractmethod
    def is_finished(self, system: System, state: Any, *, last: bool) -> bool:
        """Whether the targets are met, or cannot be; `last` says that no further step is allowed."""

    @abstractmethod
    def step(self, system: System, state: Any) -> Any:
        """The state after one more pass over A."""

    @abstractmethod
    def num_iterations(self, state: Any) -> int:
        """Passes over A so far."""

    @abstractmethod
    def value(self, system: System, state: Any) -> Float[Tensor, "*batch n k"]:
        """The solution that the state holds."""

    def indefinite(self, system: System, state: Any) -> Bool[Tensor, "*batch k"]:
        """Columns that met negative curvature; none for a solver that cannot tell."""
        return torch.zeros_like(system.targets, dtype=torch.bool)

    def after_stagnation(self) -> "Solver | None":
        """The solver that takes over once this one has stopped gaining; None: nothing more can be done."""
        return None

    def run(self, system: System, max_iterations: int) -> Iterate:
        """Iterate until finished, in parts of `max_columns` columns; the longest part counts."""
        k = system.rhs.shape[-1]
        width = self.max_columns or max(k, 1)
        values, indefinite, num_iterations = [], [], 0
        for rhs, targets in zip(system.rhs.split(width, -1), system.targets.split(width, -1), strict=True):
            part = System(system.operator, rhs, system.preconditioner, targets)
            state = self.init(part)
            while True:
                last = self.num_iterations(state) >= max_iterations
                if self.is_finished(part, state, last=last) or last:
                    break
                state = self.step(part, state)
            values.append(self.value(part, state))
            indefinite.append(self.indefinite(part, state))
            num_iterations = max(num_iterations, self.num_iterations(state))
        return Iterate(torch.cat(values, -1), num_iterations, torch.cat(indefinite, -1))
