"""From a method's name, or a solver as a value, to what solves."""

from dataclasses import dataclass
from typing import Any

import torch

from rangeformer.deprecation import warn_renamed
from rangeformer.models.looped_model import LoopedModel
from rangeformer.operators import MatrixOperator
from rangeformer.results import LogDeterminant, Solution
from rangeformer.shapes import Float, Tensor
from rangeformer.solvers.base import Solver, Stopping
from rangeformer.solvers.iterative import CG, BlockLanczos
from rangeformer.solvers.learned_krylov import check_loops, check_model, solve_by_model
from rangeformer.solvers.learned_logdet import logdet_by_model

METHODS = ("auto", "cg", "block-cg", "learned-krylov")


@dataclass(frozen=True)
class LearnedKrylov:
    """A looped model answers; the driver recomputes the residual of its answer.

    Attributes:
        model: The model; the shipped one if None.
        num_loops: Passes of the model; the model's own default if None.
    """

    model: LoopedModel | None = None
    num_loops: int | None = None

    def resolved(self) -> tuple[LoopedModel, int]:
        """The model and its number of loops."""
        model = check_model(self.model)
        return model, check_loops(self.num_loops, model)

    def solve(
        self,
        operator: MatrixOperator,
        rhs: Float[Tensor, "*batch n k"],
        stopping: Stopping,
        generator: torch.Generator | None,
    ) -> Solution:
        """Solve A X = rhs on checked arguments; differentiable.

        Args:
            operator: A, square.
            rhs: `(*batch, n, k)`.
            stopping: Its `max_iterations` does not matter.
            generator: Source of randomness; a fixed one if None.
        """
        model, num_loops = self.resolved()
        return solve_by_model(
            operator,
            rhs,
            model,
            num_loops=num_loops,
            rtol=stopping.rtol,
            fallback=stopping.fallback,
            generator=generator,
        )

    def logdet(self, operator: MatrixOperator, rtol: float, generator: torch.Generator | None) -> LogDeterminant:
        """Log det A on checked arguments; not differentiable.

        Args:
            operator: A, square.
            rtol: Estimated error accepted, relative to max(1, |log det A|).
            generator: Source of randomness; a fixed one if None.
        """
        model, num_loops = self.resolved()
        return logdet_by_model(operator, model, num_loops=num_loops, rtol=rtol, generator=generator)


def resolve_solver(method: Any, model: LoopedModel | None, num_loops: int | None) -> Solver | LearnedKrylov | None:
    """The solver that `method` names, None for "auto".

    Args:
        method: A name in today's words, or a solver as a value.
        model: Of "learned-krylov".
        num_loops: Of "learned-krylov".

    Raises:
        TypeError: `model` is no `LoopedModel`.
        ValueError: Unknown name.
    """
    name = None if isinstance(method, (Solver, LearnedKrylov)) else method
    learned = learned_solver(model, num_loops, is_chosen=name == "learned-krylov")
    if name is None:
        return method
    known = {"auto": None, "cg": CG(), "block-cg": BlockLanczos(), "learned-krylov": learned}
    if name not in known:
        raise ValueError(f"`method` must be one of {METHODS}, or a rangeformer.Solver. Got {method!r}.")
    return known[name]


def learned_solver(model: LoopedModel | None, num_loops: int | None, *, is_chosen: bool) -> LearnedKrylov:
    """The learned solver, its arguments checked where given; the shipped weights are read only if it is chosen.

    Args:
        model: The caller's model, or None.
        num_loops: The caller's choice, or None.
        is_chosen: Whether it will solve.

    Raises:
        TypeError: `model` is no `LoopedModel`.
        ValueError: `num_loops` is no positive integer.
    """
    learned = LearnedKrylov(model, num_loops)
    if is_chosen or model is not None or num_loops is not None:
        learned.resolved()
    return learned


def canonical_method(method: Any) -> Any:
    """The method's name in today's words; a deprecated one warns."""
    return _renamed("method", method, {"rangeformer-direct": "learned-krylov"})


def canonical_fallback(fallback: Any) -> Any:
    """The fallback's name in today's words; a deprecated one warns."""
    return _renamed("fallback", fallback, {"direct": "dense"})


def _renamed(argument: str, value: Any, renamed: dict[str, str]) -> Any:
    if not isinstance(value, str) or value not in renamed:
        return value
    warn_renamed(f"`{argument}`={value!r}", repr(renamed[value]))
    return renamed[value]
