"""How a rival takes part: a ladder of settings, each a run of its own, timed.

Its reads counted and its error recomputed.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch

import rangeformer as rf
from experiments.common import environment
from experiments.krylov.matrices import Case

TOLERANCES = (1e-2, 1e-4, 1e-6)
MAX_PASSES = 500  # of one run; a method that misses a tolerance is not asked for a tighter one
CLASSICAL, OURS = "classical", "ours"


@dataclass
class Run:
    """One run's matrix, and what the method says of its own costs.

    Attributes:
        case: What is solved.
        operator: A; its cost counts hold whatever the method reads.
        generator: Source of the method's randomness, on the CPU.
        setup: Seconds spent before the iteration (a preconditioner, a first guess).
        extra_passes: Passes that bypass the operator's cost counts, and `extra_matvecs`.
    """

    case: Case
    operator: rf.MatrixOperator
    generator: torch.Generator
    setup: list[float] = field(default_factory=list)
    extra_passes: int = 0
    extra_matvecs: int = 0

    def stopwatch(self):
        """Time a block, the set-up for example: `with run.stopwatch() as run.setup: ...`."""
        device = self.operator.device
        return environment.stopwatch(device, environment.steady_clock(device))


@dataclass(frozen=True)
class Method:
    """A rival.

    Attributes:
        label: Its name, with everything that was chosen for it.
        family: "classical", or "ours" where a learned part takes part.
        settings: From cheap to dear: tolerances, loops, probes.
        answer: Called with a run and a setting.
        suits: Whether it can take part.
        is_exact: A dense factorisation: it has no passes to count.
    """

    label: str
    family: str
    settings: Sequence[Any]
    answer: Callable[[Run, Any], Any]
    suits: Callable[[Case], bool] = lambda case: True
    is_exact: bool = False


def measure(
    case: Case, method: Method, error: Callable[[Any], float], seeds: Sequence[int], *, stops: bool
) -> list[dict]:
    """A point for every setting: costs, and the root mean square over the seeds of the error.

    Args:
        case: The matrix.
        method: The rival.
        error: Of an answer, outside the clock; infinite where there is none.
        seeds: Of the method's randomness; times are the least over them.
        stops: The settings are tolerances of the error: end the ladder at the first that is missed.
    """
    points = []
    for setting in method.settings:
        found = [_run(case, method, error, setting, seed) for seed in seeds]
        errors = [run["error"] for run in found]
        total = math.sqrt(sum(value**2 for value in errors) / len(errors)) if all(map(math.isfinite, errors)) else None
        quickest = min(found, key=lambda run: run["seconds"])
        points.append({"setting": setting, **quickest, "error": total})
        # a recursive residual may fall a little further than the true one
        if stops and (total is None or total > 2 * setting):
            break
    return points


def _run(case: Case, method: Method, error: Callable[[Any], float], setting: Any, seed: int) -> dict:
    run = Run(case, case.operator(), torch.Generator().manual_seed(seed))
    with warnings.catch_warnings(), run.stopwatch() as elapsed:
        # whoever fails says so in its own way; here the recomputed error speaks
        warnings.simplefilter("ignore")
        try:
            answer = method.answer(run, setting)
        except (RuntimeError, ValueError, ArithmeticError, np.linalg.LinAlgError):
            answer = None
    reads = run.operator.reads.snapshot()
    found = math.inf if answer is None else error(answer)
    return {
        "seconds": elapsed[0],
        "setup_seconds": sum(run.setup),
        "passes": reads.passes + run.extra_passes,
        "matvecs": reads.matvecs + run.extra_matvecs,
        "entries": reads.entries / case.num_rows**2,
        "error": found if math.isfinite(found) else math.inf,
    }


def scipy_operator(operator: rf.MatrixOperator) -> Any:
    """A for SciPy's iterations, counted by it; on a GPU the vectors travel, the matrix stays."""

    def multiply(vectors: np.ndarray) -> np.ndarray:
        columns = torch.from_numpy(np.ascontiguousarray(vectors.reshape(operator.num_rows, -1)))
        image = operator.matmul(columns.to(operator.device, operator.dtype)).cpu().numpy()
        return image.reshape(vectors.shape)

    options: dict[str, Any] = {"matvec": multiply, "matmat": multiply, "dtype": _numpy_dtype(operator)}
    return scipy.sparse.linalg.LinearOperator(tuple(operator.shape), **options)


def _numpy_dtype(operator: rf.MatrixOperator) -> type:
    return np.float64 if operator.dtype == torch.float64 else np.float32
