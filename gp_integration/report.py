"""What happened inside a block: recorded call by call, read as one frozen `Report`."""

import threading
from collections import Counter
from dataclasses import dataclass, field

from rangeformer.deprecation import renamed


@dataclass(frozen=True)
class Call:
    """One piece of linear algebra that went through RangeFormer.

    Attributes:
        purpose: "log_prob", "mean", "covariance", "samples", or the LinearOperator method asked for.
        size: n, the order of the matrix.
        method: How it was answered, for example "cg", "cholesky (small)", "cholesky (fallback)".
        num_columns: Right-hand sides, or samples.
        num_iterations: Iterations of the solver.
        num_matvecs: Vectors multiplied by the matrix.
        rtol: Relative residual asked for, None where no solve was asked for.
        residual: Worst relative residual achieved, recomputed from the solution.
        error_bound: Of the relative error of the solution; None where the noise does not bound it.
        gradient_error: Standard error of the gradient over its norm, where `gradient_rtol` asks for it.
        standard_error: Of the log-determinant, in nats; None where there is none.
        preconditioner: (columns read, neighbours per row), None where none was built or it is unknown.
        jitter: What Cholesky had to add to the diagonal, None where nothing was added.
    """

    purpose: str
    size: int
    method: str
    num_columns: int = 1
    num_iterations: int = 0
    num_matvecs: int = 0
    rtol: float | None = None
    residual: float | None = None
    error_bound: float | None = None
    gradient_error: float | None = None
    standard_error: float | None = None
    preconditioner: tuple[int, int] | None = None
    jitter: float | None = None

    @property
    def is_missed(self) -> bool:
        """Whether the residual is above the one asked for."""
        return self.rtol is not None and self.residual is not None and self.residual > self.rtol

    @property
    def tolerance(self) -> float | None:
        """The former name of `rtol`; deprecated."""
        return renamed("tolerance", "rtol", self.rtol)


@dataclass(frozen=True)
class Report:
    """What happened inside one `use_rangeformer` block.

    Attributes:
        calls: Every call that went to `rangeformer`, in order.
        fallbacks: (purpose, reason) of every call that ended in a Cholesky factorisation instead.
        left_alone: How often each kind of thing was passed on to GPyTorch untouched.
    """

    calls: tuple[Call, ...] = ()
    fallbacks: tuple[tuple[str, str], ...] = ()
    left_alone: dict[str, int] = field(default_factory=dict)

    def num_calls(self, purpose: str | None = None) -> int:
        """How many calls went to `rangeformer`, for one purpose or in all."""
        return sum(purpose in (None, call.purpose) for call in self.calls)

    def num_iterations(self, purpose: str | None = None) -> int:
        """Solver iterations, for one purpose or in all."""
        return sum(call.num_iterations for call in self.calls if purpose in (None, call.purpose))

    def num_matvecs(self, purpose: str | None = None) -> int:
        """Vectors multiplied by a matrix, for one purpose or in all."""
        return sum(call.num_matvecs for call in self.calls if purpose in (None, call.purpose))

    def worst_residual(self, purpose: str | None = None) -> float | None:
        """The largest relative residual of any solve, None if there was none."""
        residuals = [c.residual for c in self.calls if purpose in (None, c.purpose) and c.residual is not None]
        return max(residuals, default=None)

    @property
    def missed(self) -> tuple[Call, ...]:
        """Calls whose residual is above the tolerance: kept where their precision holds no more, else repeated."""
        return tuple(call for call in self.calls if call.is_missed)

    @property
    def preconditioners(self) -> tuple[tuple[int, int], ...]:
        """The distinct (columns read, neighbours per row) in use, smallest first."""
        return tuple(sorted({call.preconditioner for call in self.calls if call.preconditioner}))

    def __str__(self) -> str:
        header = f"{'purpose':<12} {'method':<22} {'calls':>5} {'its':>6} {'matvecs':>8} {'asked':>8} {'achieved':>9}"
        lines = [header]
        groups: dict[tuple[str, str], list[Call]] = {}
        for call in self.calls:
            groups.setdefault((call.purpose, call.method), []).append(call)
        for (purpose, method), calls in groups.items():
            asked = max((c.rtol for c in calls if c.rtol is not None), default=None)
            achieved = max((c.residual for c in calls if c.residual is not None), default=None)
            lines.append(
                f"{purpose:<12} {method:<22} {len(calls):>5} {sum(c.num_iterations for c in calls):>6} "
                f"{sum(c.num_matvecs for c in calls):>8} {_number(asked):>8} {_number(achieved):>9}"
            )
        lines += [
            f"missed the tolerance ({call.purpose}): residual {_number(call.residual)}, asked {_number(call.rtol)}"
            for call in self.missed
        ]
        lines += [
            f"jitter ({call.purpose}): {_number(call.jitter)} was added to the diagonal"
            for call in self.calls
            if call.jitter is not None
        ]
        lines += [f"fallback to Cholesky ({purpose}): {reason}" for purpose, reason in self.fallbacks]
        lines += [f"left alone ({count} times): {kind}" for kind, count in self.left_alone.items()]
        return "\n".join(lines)


class Recorder:
    """Collects what a block does; `report()` may be read at any time, also while the block runs."""

    def __init__(self):
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._fallbacks: list[tuple[str, str]] = []
        self._left_alone: Counter[str] = Counter()

    def call(self, call: Call) -> None:
        """Record a call that was answered here."""
        with self._lock:
            self._calls.append(call)

    def fallback(self, purpose: str, reason: str) -> None:
        """Record that a call ended in a Cholesky factorisation, and why."""
        with self._lock:
            self._fallbacks.append((purpose, reason))

    def left_alone(self, kind: str) -> None:
        """Record that GPyTorch was left to do something its own way."""
        with self._lock:
            self._left_alone[kind] += 1

    def report(self) -> Report:
        """A frozen copy of everything recorded so far."""
        with self._lock:
            return Report(tuple(self._calls), tuple(self._fallbacks), dict(self._left_alone))

    def __str__(self) -> str:
        return str(self.report())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
