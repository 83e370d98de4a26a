"""Every matrix of `tests.hostile` given to every function: is the answer right, does it say that it is not, or neither?

`python -m experiments.hostile` writes the table of docs/hostile-matrices.md anew. Needs a checkout: the matrices lie in
its tests. Answers are judged by exact arithmetic (`tests.exact_arithmetic`), to the tolerance that each call states.
"""

import math
import re
import signal
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rangeformer as rf
import sketching
from experiments.common.options import option, parse
from tests.exact_arithmetic import definite, residual
from tests.hostile import DTYPES, HOSTILE, Hostile, OwnError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "hostile-matrices.md"
RIGHT, SAYS_SO, REFUSED, WRONG = "right", "says so", "refused", "WRONG"
MOST_SECONDS = 20
RTOL = 1e-6  # of solves and spectra, by default
RANK, NUM_SAMPLES, SEED = 5, 256, 0
_NAMED = re.compile(r"`(A|rhs|dtype)`")


@dataclass(frozen=True)
class Config:
    """Give hostile matrices to every function and tabulate what comes back."""

    only: str = option("", "a regular expression; matrices it does not find are left out and nothing is written")


@dataclass(frozen=True)
class Verdict:
    """What a judge says of an answer.

    Attributes:
        claims: Whether the result claims to be within its tolerance; None if it has no field to say so.
        wrong: What is wrong with it, measured against its claim; empty if nothing.
    """

    claims: bool | None
    wrong: str = ""


class Hang(BaseException):
    """A call took too long. No `Exception`, so that nothing on the way handles it."""


def _unit(A: Tensor) -> tuple[np.ndarray, float]:
    """A over a power of two, in float64 and of ordinary size, and that power: no digit changes."""
    wide = A.to(torch.float64).numpy()
    exponent = math.frexp(np.abs(wide).max())[1] if wide.any() else 0
    return np.ldexp(wide, -exponent), exponent


def _solution(problem: Hostile, solution: rf.Solution, rtol: float = RTOL) -> Verdict:
    """The residual of the value, exactly."""
    claims, stated = bool(solution.converged), float(solution.residual_norms)
    if not bool(solution.value.isfinite().all()):
        return Verdict(claims, "the value is not finite")
    true = residual(problem.matrix, solution.value, problem.rhs).relative(problem.rhs)
    if true > 2 * stated + rtol:
        # An understated residual is a claim, whatever else the result says.
        return Verdict(True, f"the residual is {true:.1e}, stated {stated:.1e}")
    return Verdict(claims, f"the residual is {true:.2e}" if claims and true > 1.01 * rtol else "")


def _logdet(problem: Hostile, result: rf.LogDeterminant) -> Verdict:
    return Verdict(result.status is rf.Status.CONVERGED, _off(problem, result.value, result.standard_error))


def _off(problem: Hostile, value: Tensor, error: Tensor, rtol: float = 1e-3) -> str:
    """How a log-determinant misses the exact one by more than its tolerance and four standard errors."""
    exact = definite(problem.matrix, problem.rhs)
    if exact is None:
        return f"{float(value):.6g} for a matrix that is not positive definite"
    allowed = rtol * max(1.0, abs(exact.logdet)) + 4 * float(error)
    return "" if abs(float(value) - exact.logdet) <= allowed else f"{float(value):.6g}, exactly {exact.logdet:.6g}"


def _inv_quad_logdet(problem: Hostile, result: rf.InvQuadLogdet) -> Verdict:
    part = _solution(problem, result.solution, rtol=1e-4)
    if part.claims and part.wrong:
        return part
    wrong = _off(problem, result.logdet, result.standard_error)
    exact = definite(problem.matrix, problem.rhs)
    if exact is not None and not abs(float(result.inv_quad) - exact.inv_quad) <= 1e-3 * exact.inv_quad:
        wrong = wrong or f"the form is {float(result.inv_quad):.6g}, exactly {exact.inv_quad:.6g}"
    return Verdict(result.status is rf.Status.CONVERGED, wrong)


def _samples(problem: Hostile, draws: Tensor) -> Verdict:
    """Second moments, whitened where A is larger than what the tolerance may do to a draw."""
    A, exponent = _unit(problem.matrix)
    values, vectors = np.linalg.eigh(A)
    if values[0] < -1e-4 * values[-1]:
        return Verdict(None, "samples of an indefinite matrix")
    if not values[-1] > 0:
        return Verdict(None, "samples that are not zero" if bool(draws.any()) else "")
    half = exponent // 2
    X = np.ldexp(draws.to(torch.float64).numpy(), -half)
    floor = len(A) * 1e-8 * values[-1]
    target = np.maximum(np.ldexp(values, exponent - 2 * half), 0) + np.ldexp(floor, exponent - 2 * half)
    moments = vectors.T @ (X.T @ X / len(X)) @ vectors + np.ldexp(floor, exponent - 2 * half) * np.eye(len(A))
    whitened = moments / np.sqrt(np.outer(target, target))
    if not np.isfinite(whitened).all():
        return Verdict(None, "samples that are not finite")
    found = np.linalg.eigvalsh(whitened)
    # between (1 - sqrt(n / draws))^2 and (1 + sqrt(n / draws))^2, with a margin
    spread = math.sqrt(len(A) / len(X))
    good = found[0] >= 0.6 * (1 - spread) ** 2 and found[-1] <= 1.5 * (1 + spread) ** 2
    return Verdict(None, "" if good else f"whitened variances from {found[0]:.2g} to {found[-1]:.2g}")


def _spectrum(problem: Hostile, spectrum: rf.Spectrum, *, symmetric: bool) -> Verdict:
    """Values that have converged are within rtol of the largest magnitude."""
    A, exponent = _unit(problem.matrix)
    exact = np.linalg.eigvalsh((A + A.T) / 2) if symmetric else np.linalg.svd(A, compute_uv=False)
    claims = bool(spectrum.converged.all())
    value = np.ldexp(spectrum.value.to(torch.float64).numpy(), -exponent)
    off = np.abs(value - exact)[spectrum.converged.numpy()]
    most = RTOL * np.abs(exact).max()
    if symmetric and np.abs(A - A.T).max() > 1e-6:
        return Verdict(claims, "eigenvalues of an asymmetric matrix")
    return Verdict(
        claims, "" if (off <= most).all() else f"off by {off.max() / np.abs(exact).max():.1e} of the largest"
    )


def _least_squares(problem: Hostile, result: rf.LeastSquares) -> Verdict:
    claims = bool(result.converged)
    if not bool(result.value.isfinite().all()):
        return Verdict(claims, "the value is not finite")
    left = residual(problem.matrix, result.value, problem.rhs)
    relative, gradient = left.relative(problem.rhs), left.gradient(problem.matrix)
    if claims and relative > RTOL and gradient > RTOL:
        return Verdict(claims, f"gradient {gradient:.1e}, residual {relative:.1e}")
    A, exponent = _unit(problem.matrix)
    values = np.linalg.svd(A, compute_uv=False)
    cut = len(A) * torch.finfo(problem.matrix.dtype).eps * values[0]
    # Where the rank is no matter of opinion, the solution is the shortest.
    if not ((values > cut / 100) & (values < 1e4 * cut)).any():
        shortest = np.linalg.norm(np.linalg.pinv(A, rcond=cut / max(values[0], 1e-300)) @ problem.rhs.double().numpy())
        length = np.linalg.norm(np.ldexp(result.value.double().numpy(), exponent))
        if claims and length > 1.01 * shortest:
            return Verdict(claims, f"{length / shortest:.3g} times as long as the shortest")
    return Verdict(claims)


def _low_rank(problem: Hostile, left: Tensor, values: Tensor, right: Tensor, stated: float) -> Verdict:
    """The error is what is stated, and near what rank allows; the bases are orthonormal."""
    A, exponent = _unit(problem.matrix)
    U, V = left.double().numpy(), right.double().numpy()
    S = np.ldexp(values.double().numpy(), -exponent)
    rounding = 1e3 * torch.finfo(problem.matrix.dtype).eps
    size = np.linalg.norm(A) or 1.0
    error = np.linalg.norm(A - U * S @ V.T) / size
    least = np.linalg.norm(np.linalg.svd(A, compute_uv=False)[len(S) :]) / size
    if not max(np.abs(Q.T @ Q - np.eye(len(S))).max() for Q in (U, V)) <= rounding:
        return Verdict(True, "bases that are not orthonormal")
    if not error <= 3 * stated + rounding:
        return Verdict(True, f"the error is {error:.1e}, stated {stated:.1e}")
    return Verdict(True, "" if error <= 2 * least + rounding else f"the error is {error:.1e}, could be {least:.1e}")


def _svd(problem: Hostile, found: sketching.LowRank) -> Verdict:
    return _low_rank(problem, found.U, found.S, found.Vh.mT, found.relative_error)


def _eigen(problem: Hostile, found: sketching.Eigen) -> Verdict:
    return _low_rank(problem, found.eigenvectors, found.eigenvalues, found.eigenvectors, found.relative_error)


def _rank(problem: Hostile) -> int:
    return min(RANK, len(problem.matrix))


# name -> (call, judge)
CALLS: dict[str, tuple[Callable[[Hostile], Any], Callable[[Hostile, Any], Verdict]]] = {
    "linear_solve": (lambda p: rf.linear_solve(p.given, p.rhs), _solution),
    "linear_solve, learned-krylov": (lambda p: rf.linear_solve(p.given, p.rhs, method="learned-krylov"), _solution),
    "logdet": (lambda p: rf.logdet(p.given), _logdet),
    "logdet, learned-krylov": (lambda p: rf.logdet(p.given, method="learned-krylov"), _logdet),
    "inv_quad_logdet": (lambda p: rf.inv_quad_logdet(p.given, p.rhs), _inv_quad_logdet),
    "sample_gaussian": (
        lambda p: rf.sample_gaussian(p.given, NUM_SAMPLES, generator=torch.Generator().manual_seed(SEED)),
        _samples,
    ),
    "eigvalsh": (lambda p: rf.eigvalsh(p.given), lambda p, found: _spectrum(p, found, symmetric=True)),
    "svdvals": (lambda p: rf.svdvals(p.given), lambda p, found: _spectrum(p, found, symmetric=False)),
    "lstsq": (lambda p: rf.lstsq(p.given, p.rhs), _least_squares),
    "randomized_svd": (lambda p: sketching.randomized_svd(p.given, _rank(p)), _svd),
    "nystrom": (lambda p: sketching.nystrom(p.given, _rank(p)), _eigen),
}


@contextmanager
def _time_limit(seconds: int):
    def ring(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(problem: Hostile, name: str) -> tuple[str, str]:
    """One call: (what came of it, what was raised, warned of or wrong)."""
    call, judge = CALLS[name]
    try:
        with warnings.catch_warnings(record=True) as caught, _time_limit(MOST_SECONDS):
            warnings.simplefilter("always")
            answer = call(problem)
    except OwnError as error:
        return REFUSED, f"let through: {error}"
    except NotImplementedError as error:
        # The documented refusal of a matrix that is known through products from the right alone.
        return (REFUSED if "from the left" in str(error) else WRONG), f"NotImplementedError: {error}"
    except (TypeError, ValueError) as error:
        return (REFUSED if _NAMED.search(str(error)) else WRONG), f"{type(error).__name__}: {error}"
    except Hang:
        return WRONG, f"longer than {MOST_SECONDS} s"
    except Exception as error:
        return WRONG, f"{type(error).__name__}: {error}"
    foreign = [w for w in caught if not issubclass(w.category, rf.ConvergenceWarning)]
    if foreign:
        return WRONG, f"{foreign[0].category.__name__}: {foreign[0].message}"
    if not bool(problem.matrix.isfinite().all()):
        return WRONG, "an answer for a matrix that is not finite"
    return _judged(judge(problem, answer), [str(w.message) for w in caught])


def _judged(verdict: Verdict, said: list[str]) -> tuple[str, str]:
    if said and not verdict.claims:
        return SAYS_SO, said[0]
    if verdict.wrong:
        return WRONG, verdict.wrong
    if verdict.claims is False:
        return WRONG, "not converged, without a warning"
    return (SAYS_SO, said[0]) if said else (RIGHT, "")


def outcomes(only: str = "") -> dict[str, dict[str, dict[str, tuple[str, str]]]]:
    """Matrix -> call -> type -> outcome, of the matrices whose name `only` finds."""
    found = {}
    for name, build in HOSTILE.items():
        if re.search(only, name):
            found[name] = {
                call: {kind: outcome(build(dtype), call) for kind, dtype in DTYPES.items()} for call in CALLS
            }
    return found


def markdown(found: dict[str, dict[str, dict[str, tuple[str, str]]]]) -> str:
    """The table: one word where both types agree, else float64's / float32's."""
    rows = [[name, *(_cell(kinds) for kinds in calls.values())] for name, calls in found.items()]
    lines = [["matrix", *(f"`{name}`" for name in CALLS)], ["---"] * (len(CALLS) + 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(kinds: dict[str, tuple[str, str]]) -> str:
    words = [word for word, _ in kinds.values()]
    return words[0] if len(set(words)) == 1 else " / ".join(words)


def render(page: str, found: dict[str, dict[str, dict[str, tuple[str, str]]]]) -> str:
    """The page with everything between the markers written anew."""
    pattern = r"(?P<begin><!-- outcomes -->)\n.*?(?P<end><!-- end of outcomes -->)"
    return re.sub(pattern, lambda m: f"{m['begin']}\n{markdown(found)}{m['end']}", page, flags=re.DOTALL)


def main(config: Config) -> None:
    """Print what is wrong, and write the page where nothing is left out."""
    torch.set_num_threads(1)
    found = outcomes(config.only)
    for name, calls in found.items():
        for call, kinds in calls.items():
            for kind, (word, why) in kinds.items():
                if word == WRONG or config.only:
                    print(f"{word}: {name}, {call}, {kind}: {why}")
    if not config.only:
        PAGE.write_text(render(PAGE.read_text(), found))


if __name__ == "__main__":
    main(parse(Config))
