"""From a method's name, or a solver as a value, to what solves."""

import warnings
from dataclasses import dataclass

from rangeformer.models.looped_model import LoopedModel
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.solvers.base import Solver
from rangeformer.solvers.iterative import CG, BlockLanczos, automatic
from rangeformer.solvers.learned_krylov import check_loops, check_model

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


def resolve_solver(method: object, model: LoopedModel | None, num_loops: int | None) -> Solver | LearnedKrylov | None:
    """The solver that `method` names, None for "auto".

    Args:
        method: A name, or a solver as a value.
        model: Of "learned-krylov".
        num_loops: Of "learned-krylov".

    Raises:
        TypeError: `model` is no `LoopedModel`.
        ValueError: Unknown name.
    """
    learned = LearnedKrylov(model, num_loops)
    learned.resolved()
    if isinstance(method, (Solver, LearnedKrylov)):
        return method
    name = canonical_method(method)
    known = {"auto": None, "cg": CG(), "block-cg": BlockLanczos(), "learned-krylov": learned}
    if name not in known:
        raise ValueError(f"`method` must be one of {METHODS}, or a rangeformer.Solver. Got {method!r}.")
    return known[name]


def solver_for(solver: Solver | None, num_columns: int, P: Preconditioner) -> Solver:
    """The solver itself, or for None the one that pays for this many columns."""
    return automatic(num_columns, is_exact=P.is_exact) if solver is None else solver


def canonical_method(method: object) -> object:
    """The method's name in today's words; a deprecated one warns."""
    return _renamed("method", method, {"rangeformer-direct": "learned-krylov"})


def canonical_fallback(fallback: object) -> object:
    """The fallback's name in today's words; a deprecated one warns."""
    return _renamed("fallback", fallback, {"direct": "dense"})


def _renamed(argument: str, value: object, renamed: dict[str, str]) -> object:
    if not isinstance(value, str) or value not in renamed:
        return value
    new = renamed[value]
    warnings.warn(
        f"`{argument}`={value!r} is now called {new!r}; the old name goes with the next version.",
        DeprecationWarning,
        stacklevel=4,
    )
    return new
