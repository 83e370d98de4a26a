"""The two iterations with a preconditioner: conjugate gradients per column, and one block Krylov space for all."""

from dataclasses import dataclass

from rangeformer.krylov.block_lanczos import BlockKrylov
from rangeformer.krylov.conjugate_gradients import Iterate, Recurrence, advance, begin, conjugate_gradients
from rangeformer.krylov.expansion import MAX_BLOCK, GalerkinSolution, krylov_space
from rangeformer.shapes import Bool, Float, Tensor
from rangeformer.solvers.base import Solver, System

# One shared space pays from this many columns on.
_BLOCK_FROM = 4


@dataclass(frozen=True)
class CG(Solver):
    """Preconditioned conjugate gradients, one recurrence per column (`rangeformer.krylov.conjugate_gradients`)."""

    name = "cg"

    def init(self, system: System) -> Recurrence:
        """X = 0."""
        return begin(system.rhs, system.preconditioner.solve)

    def is_finished(self, system: System, state: Recurrence, *, last: bool) -> bool:
        """Whether no column is above its target, by the recursive residual."""
        return not bool(state.active(system.targets.to(system.rhs.dtype)).any())

    def step(self, system: System, state: Recurrence) -> Recurrence:
        """One recurrence step of every active column."""
        active = state.active(system.targets.to(system.rhs.dtype))
        return advance(state, system.operator.matmul, system.preconditioner.solve, active)

    def num_iterations(self, state: Recurrence) -> int:
        """Steps so far."""
        return state.num_iterations

    def value(self, system: System, state: Recurrence) -> Float[Tensor, "*batch n k"]:
        """X."""
        return state.x

    def indefinite(self, system: System, state: Recurrence) -> Bool[Tensor, "*batch k"]:
        """Columns frozen at negative curvature."""
        return state.indefinite

    def run(self, system: System, max_iterations: int) -> Iterate:
        """As the base class, in the algorithm's own loop, which asks once a step which columns move."""
        return conjugate_gradients(
            system.operator.matmul,
            system.rhs,
            system.preconditioner.solve,
            target_norms=system.targets.to(system.rhs.dtype),
            max_iterations=max_iterations,
        )


@dataclass
class _Space:
    """A block Krylov space that is being expanded for one system."""

    krylov: BlockKrylov
    solution: GalerkinSolution
    exhausted: bool = False


@dataclass(frozen=True)
class BlockLanczos(Solver):
    """One block Krylov space shared by up to 64 columns (`rangeformer.krylov.block_lanczos`).

    What it leaves after stagnating, or after a breakdown of one matrix of a batch, is finished by `CG`.
    """

    name = "block-cg"
    max_columns = MAX_BLOCK

    def init(self, system: System) -> _Space:
        """The space of the first block: one pass."""
        P = system.preconditioner
        krylov = krylov_space(system.operator, P, P.whiten(system.rhs))
        return _Space(krylov, GalerkinSolution(krylov, P, system.rhs, system.targets))

    def is_finished(self, system: System, state: _Space, *, last: bool) -> bool:
        """Whether the solution in the space meets its targets, or the space has none or can grow no further."""
        if not state.krylov.has_solution:
            return True
        last = last or state.exhausted
        return state.solution.finished(last) or last

    def step(self, system: System, state: _Space) -> _Space:
        """One more block."""
        state.exhausted = not state.krylov.expand()
        return state

    def num_iterations(self, state: _Space) -> int:
        """Blocks so far."""
        return state.krylov.num_blocks

    def value(self, system: System, state: _Space) -> Float[Tensor, "*batch n k"]:
        """The Galerkin solution."""
        return state.solution.value()

    def indefinite(self, system: System, state: _Space) -> Bool[Tensor, "*batch k"]:
        """All columns of a matrix that showed negative curvature."""
        return state.solution.indefinite

    def after_stagnation(self) -> Solver:
        """Separate recurrences need no shared space: they go on where its memory or precision ended."""
        return CG()

    def run(self, system: System, max_iterations: int) -> Iterate:
        """As the base class; where P is A itself, P^-1 alone solves."""
        if system.preconditioner.is_exact:
            indefinite = super().indefinite(system, None)
            return Iterate(system.preconditioner.solve(system.rhs), 1, indefinite)
        return super().run(system, max_iterations)


def automatic(num_columns: int, *, is_exact: bool) -> Solver:
    """The one that pays for this many columns; a block solver where P is A itself."""
    return BlockLanczos() if num_columns >= _BLOCK_FROM or is_exact else CG()
