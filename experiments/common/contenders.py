"""The columns of the comparison.

Each answers an operation on a matrix, says what it read, and whether it reports a failure.

A classical column gets the reads of ours (`Price`) in one of two currencies: *passes*, in which A may be multiplied by
as many vectors at once as the operation has use for, or *matvecs*, in which every vector counts.
"""

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

import rangeformer as rf
from experiments.common import classical
from rangeformer.baselines import PaperRangeFormer, ScaledPaperRangeFormer
from rangeformer.models.looped_model import LoopedModel

OPERATIONS = ("solve", "eigenvalues", "logdet", "inverse")
RTOL = 1e-6  # what a solve must reach not to be reported as a failure
QUADRATURE_STEPS = 30  # of each probe, where there are too few products for an exact log-determinant
BLOCK = 32  # columns on which the inverse acts where n is larger; all of them otherwise


@dataclass(frozen=True)
class Problem:
    """One matrix with its exact answers in float64; what does not exist is missing from `truth`."""

    family: str
    matrix: Tensor  # (n, n)
    rhs: Tensor  # (n, 1)
    block: Tensor  # (n, k): unit vectors, or Gaussian columns where n > BLOCK
    cond: float  # infinite if the matrix is singular
    truth: dict[str, Tensor] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Number n of rows."""
        return len(self.matrix)

    def columns(self, operation: str) -> Tensor:
        """The right-hand sides of a solve, or of the action of the inverse."""
        return self.rhs if operation == "solve" else self.block


@dataclass(frozen=True)
class Price:
    """What an answer reads: passes over A, and vectors multiplied by it."""

    num_passes: int = 0
    num_matvecs: int = 0


@dataclass(frozen=True)
class Answer:
    """What a column says; `value` is None where it cannot run.

    May hold NaN where it says that there is no answer.
    """

    value: Tensor | None
    reported: bool = False
    price: Price = Price()


CANNOT_RUN = Answer(None)


def problem(family: str, matrix: Tensor, generator: torch.Generator) -> Problem:
    """A matrix with a Gaussian right-hand side and its exact answers.

    Solutions are refined once with residuals in extended precision, so that the oracle's own error can be seen.
    """
    n = len(matrix)
    rhs = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    block = torch.eye(n, dtype=torch.float64)
    if n > BLOCK:
        block = torch.randn(n, BLOCK, generator=generator, dtype=torch.float64)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    truth = {"eigenvalues": eigenvalues}
    factor, info = torch.linalg.cholesky_ex(matrix)
    definite = int(info) == 0 and float(eigenvalues[0]) > 0
    if definite:
        truth["logdet"] = 2 * factor.diagonal().log().sum()
        truth["solve"], truth["inverse"] = (_refined(matrix, factor, columns) for columns in (rhs, block))
    cond = float(eigenvalues[-1] / eigenvalues[0]) if definite else math.inf
    return Problem(family, matrix, rhs, block, cond, truth)


def _refined(matrix: Tensor, factor: Tensor, rhs: Tensor) -> Tensor:
    solution = torch.cholesky_solve(rhs, factor)
    residual = rhs.numpy() - matrix.numpy().astype(np.longdouble) @ solution.numpy().astype(np.longdouble)
    return solution + torch.cholesky_solve(torch.from_numpy(residual.astype(np.float64)), factor)


class Contender(ABC):
    """One column of the comparison."""

    label: str

    @abstractmethod
    def answer(self, problem: Problem, operation: str, price: Price) -> Answer:
        """Answer one of `OPERATIONS`.

        Args:
            problem: The matrix and its right-hand sides.
            operation: Which.
            price: What ours read for the same; only classical columns look at it.
        """


def solve_directly(A: Any, rhs: Tensor, model: LoopedModel, num_loops: int | None) -> rf.Solution:
    """A looped model's solution with the driver's evidence, whether it met the tolerance or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.ConvergenceWarning)
        return rf.linear_solve(
            A, rhs, method="learned-krylov", model=model, num_loops=num_loops, rtol=RTOL, fallback=None
        )


@dataclass(frozen=True)
class Ours(Contender):
    """A looped model of this package through the public functions, which check what it says."""

    label: str
    model: LoopedModel
    num_loops: int | None = None

    def answer(self, problem: Problem, operation: str, price: Price) -> Answer:
        """The model's answer with the driver's verdict."""
        A, options = problem.matrix, {"model": self.model, "num_loops": self.num_loops}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rf.ConvergenceWarning)
            try:
                if operation == "eigenvalues":
                    found = rf.eigvalsh(A, **options)
                elif operation == "logdet":
                    found = rf.logdet(A, method="learned-krylov", fallback=None, **options)
                else:
                    found = solve_directly(A, problem.columns(operation), self.model, self.num_loops)
            except ValueError:  # a message about the matrix is a report, too
                return Answer(torch.full_like(problem.rhs[0], math.nan), reported=True)
        reported = not bool(found.converged.all())
        return Answer(found.value, reported, Price(found.num_passes, found.num_matvecs))


@dataclass(frozen=True)
class Paper(Contender):
    """The paper's RangeFormer, one model an operation; it never reports a failure."""

    label: str
    models: dict[str, nn.Module]

    def answer(self, problem: Problem, operation: str, price: Price) -> Answer:
        """The network's answer, if there is a network for the operation and n is not too large for it."""
        model = self.models.get(operation)
        if model is None or (model.config.tied_to_n_max and problem.num_rows > model.config.n_max):
            return CANNOT_RUN
        A = problem.matrix.unsqueeze(0)
        with torch.no_grad():
            if operation == "solve":
                return Answer(model(A, problem.rhs.mT).mT)
            value = model(A).squeeze(0)
        return Answer(value @ problem.block if operation == "inverse" else value)


@dataclass(frozen=True)
class Krylov(Contender):
    """CG per column, plain or Jacobi; Lanczos for eigenvalues, and its quadrature for the log-determinant."""

    label: str
    currency: str  # "passes" or "matvecs"
    preconditioned: bool = False
    seed: int = 0
    by_residual: bool = False  # answer with the iterate of the smallest residual, where residuals are compared

    def answer(self, problem: Problem, operation: str, price: Price) -> Answer:
        """As many steps as the price buys."""
        A, n = problem.matrix, problem.num_rows
        generator = torch.Generator().manual_seed(self.seed)
        if operation in ("solve", "inverse"):
            rhs = problem.columns(operation)
            steps = price.num_passes if self.currency == "passes" else price.num_matvecs // rhs.shape[-1]
            steps = min(steps, 10 * n)
            precondition = classical.jacobi(A.diagonal()) if self.preconditioned else None
            run = classical.conjugate_gradients(A.matmul, rhs, steps, precondition)
            steps = len(run.relative_residuals) - 1
            solution = run.smallest if self.by_residual else run.solution
            return Answer(solution, price=Price(steps, steps * rhs.shape[-1]))
        if self.preconditioned:
            return CANNOT_RUN  # there is one Lanczos column, and it stands beside plain CG
        steps, probes = self._steps_and_probes(operation, n, price)
        estimate = classical.lanczos_eigenvalues if operation == "eigenvalues" else classical.lanczos_logdet
        value = estimate(A.matmul, n, steps, generator=generator, num_probes=probes)
        passes = steps if self.currency == "passes" else steps * probes
        return Answer(value, price=Price(passes, steps * probes))

    def _steps_and_probes(self, operation: str, n: int, price: Price) -> tuple[int, int]:
        """All probes move in one pass, so passes buy ours' block width of them; matvecs buy steps first."""
        if self.currency == "passes":
            return min(price.num_passes, n), max(1, price.num_matvecs // max(price.num_passes, 1))
        if operation == "eigenvalues" or price.num_matvecs >= n:
            return min(price.num_matvecs, n), 1
        steps = min(QUADRATURE_STEPS, price.num_matvecs)
        return steps, max(1, price.num_matvecs // max(steps, 1))


@dataclass(frozen=True)
class Direct(Contender):
    """Dense factorisations in float64, other ones than those of the truth where there are: the oracle."""

    label: str = "direct"

    def answer(self, problem: Problem, operation: str, price: Price) -> Answer:
        """LAPACK's answer, and its verdict."""
        A = problem.matrix
        if operation == "eigenvalues":
            return Answer(torch.from_numpy(scipy.linalg.eigvalsh(A.numpy(), driver="ev")))
        if operation == "logdet":
            sign, value = torch.linalg.slogdet(A)
            return Answer(value, reported=not float(sign) > 0)
        solution, info = torch.linalg.solve_ex(A, problem.columns(operation))
        return Answer(solution, reported=int(info) != 0)


def contenders(ours: dict[str, LoopedModel], paper: dict[str, PaperRangeFormer], num_loops: int) -> list[Contender]:
    """All columns, `ours` by label; without checkpoints of the paper's model, without it."""
    rivals = [
        Paper("paper", dict(paper)),
        Paper("paper, scaled", {name: ScaledPaperRangeFormer(model) for name, model in paper.items()}),
    ]
    return [
        *(rivals if paper else ()),
        *(Ours(label, model, num_loops) for label, model in ours.items()),
        Krylov("CG / Lanczos, equal passes", "passes"),
        Krylov("Jacobi-CG, equal passes", "passes", preconditioned=True),
        Krylov("CG / Lanczos, equal matvecs", "matvecs"),
        Krylov("Jacobi-CG, equal matvecs", "matvecs", preconditioned=True),
        Direct(),
    ]
