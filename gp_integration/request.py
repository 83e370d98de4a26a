"""One call to `rangeformer`: on whose behalf, how accurate, with which preconditioner."""

import threading
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from linear_operator.operators import LinearOperator

import rangeformer as rf
from gp_integration import structure_cache as structures
from gp_integration.state import Block
from rangeformer.solvers.logdet_estimate import DEFAULT_NUM_PROBES
from rangeformer.preconditioners.cholesky import is_cheaper


@dataclass
class Shared:
    """A preconditioner that several calls with one matrix share, built by the first.

    Attributes:
        preconditioner: Built at first use, and replaced by the Cholesky factor once that has become cheaper.
        num_columns: Right-hand sides of all calls so far.
    """

    preconditioner: rf.Preconditioner | None = None
    num_columns: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Task:
    """One call: on whose behalf, how accurate, and with which preconditioner.

    Attributes:
        block: The block that asks; its options apply and its recorder hears of it.
        purpose: The name under which the call is recorded.
        tolerance: Relative residual per column.
        preconditioner: The preconditioner, None until `prepared`.
        shared: Where to keep it for later calls, None if every call builds its own.
        kernel: Whose covariance it is: its structure is remembered for the next call, None to search anew.
    """

    block: Block
    purpose: str
    tolerance: float
    preconditioner: rf.Preconditioner | None = None
    shared: Shared | None = None
    kernel: torch.nn.Module | None = None

    def prepared(self, operator: rf.MatrixOperator, num_columns: int) -> "Task":
        """This task with a preconditioner for `num_columns` right-hand sides."""
        if self.preconditioner is not None:
            return self
        shared = Shared() if self.shared is None else self.shared
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
            structure = structures.recall(self.kernel, self.key(operator))
        return rf.build_preconditioner(
            operator,
            options.preconditioner(),
            num_rhs=num_columns,
            structure=structure,
            generator=options.generator(operator.device),
        )

    def key(self, matrix: rf.MatrixOperator | LinearOperator) -> tuple:
        """What a remembered structure must agree in."""
        return tuple(matrix.shape), matrix.dtype, str(matrix.device), self.block.options

    def keywords(self) -> dict[str, Any]:
        """The arguments that every driver of `rangeformer` takes; failures are ours to handle."""
        return {
            "rtol": self.tolerance,
            "preconditioner": self.preconditioner,
            "max_iterations": self.block.options.max_iterations,
            "fallback": None,
        }

    def num_probes(self) -> int:
        """Probes of a log-determinant."""
        return self.block.options.num_probes or DEFAULT_NUM_PROBES
