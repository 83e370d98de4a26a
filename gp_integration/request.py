"""What a call to `rangeformer` is asked for: how accurate an answer, and with which preconditioner."""

import threading
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from linear_operator.operators import LinearOperator

import rangeformer as rf
from gp_integration import structure_cache
from gp_integration.state import SettingsBlock
from rangeformer.preconditioners.cholesky import is_cheaper
from rangeformer.solvers.logdet_estimate import DEFAULT_NUM_PROBES

ERROR_FACTOR = 10
"""Relative error of a solution that is aimed at, over the relative residual that is asked for.

Centred targets leave the two a factor of three to ten apart, so that only others take more iterations.
"""


@dataclass
class SharedPreconditioner:
    """A preconditioner that several calls with one matrix share, built by the first.

    Attributes:
        preconditioner: Built at first use, and replaced by the Cholesky factor once that has become cheaper.
        num_columns: Right-hand sides of all calls so far.
    """

    preconditioner: rf.Preconditioner | None = None
    num_columns: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class SolveRequest:
    """One call: for which block, how accurate, and with which preconditioner.

    Attributes:
        block: The block the call is made in; its options apply, and its recorder records the call.
        purpose: The name under which the call is recorded.
        rtol: Relative residual per column.
        preconditioner: The preconditioner, None until `prepared`.
        shared: Where it is kept for later calls with the same matrix; None if every call builds its own.
        kernel: The kernel behind the matrix: the structure found is kept for its next call; None keeps nothing.
        error_rtol: Relative error of the solution to aim at, where gradients or predictions inherit it.
    """

    block: SettingsBlock
    purpose: str
    rtol: float
    preconditioner: rf.Preconditioner | None = None
    shared: SharedPreconditioner | None = None
    kernel: torch.nn.Module | None = None
    error_rtol: float | None = None

    def prepared(self, operator: rf.MatrixOperator, num_columns: int) -> "SolveRequest":
        """This request with a preconditioner for `num_columns` right-hand sides."""
        if self.preconditioner is not None:
            return self
        shared = SharedPreconditioner() if self.shared is None else self.shared
        with shared.lock:
            shared.num_columns += num_columns
            factorise = self._factor_is_cheaper(operator, shared.num_columns)
            if shared.preconditioner is None or (factorise and not shared.preconditioner.is_exact):
                shared.preconditioner = self._build(operator, shared.num_columns, factorise)
        return replace(self, preconditioner=shared.preconditioner)

    def _factor_is_cheaper(self, operator: rf.MatrixOperator, num_columns: int) -> bool:
        """Whether there are so many columns that the whole Cholesky factor is the cheaper preconditioner."""
        chosen_by_hand = self.block.options.num_columns is not None or self.block.options.num_neighbors is not None
        return not chosen_by_hand and is_cheaper(operator, num_columns)

    def _build(self, operator: rf.MatrixOperator, num_columns: int, factorise: bool) -> rf.Preconditioner:
        options = self.block.options
        structure = None
        if self.kernel is not None and not factorise:
            structure = structure_cache.find(self.kernel, self.structure_key(operator))
        return rf.build_preconditioner(
            operator,
            options.preconditioner(),
            num_rhs=num_columns,
            structure=structure,
            generator=options.generator(operator.device),
        )

    def structure_key(self, matrix: rf.MatrixOperator | LinearOperator) -> tuple:
        """What a remembered structure must agree in."""
        return tuple(matrix.shape), matrix.dtype, str(matrix.device), self.block.options

    def keywords(self) -> dict[str, Any]:
        """The arguments that every driver of `rangeformer` takes. Failures are handled in `fallback`."""
        return {
            "rtol": self.rtol,
            "preconditioner": self.preconditioner,
            "max_iterations": self.block.options.max_iterations,
            "fallback": None,
        }

    def num_probes(self) -> int:
        """Probes of a log-determinant."""
        return self.block.options.num_probes or DEFAULT_NUM_PROBES
