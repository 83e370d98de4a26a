"""No hostile matrix gets a silently wrong answer, and docs/hostile-matrices.md says what each of them gets.

All calls are made in one fresh process without the tests' type checker, as a user makes them.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import rangeformer as rf
from experiments import hostile
from tests.exact_arithmetic import definite, residual
from tests.hostile import DTYPES, HOSTILE, Hostile, OwnError
from tests.reference.record import RECORDED, fingerprint

ROOT = Path(__file__).resolve().parents[2]

BOTH = tuple(DTYPES)
_DRIFT = "complete spaces take one product, so nothing shows that the next would be another"
# (matrix, calls, types, why they are wrong). What is right again has to go.
_KNOWN: list[tuple[str, tuple[str, ...], tuple[str, ...], str]] = [
    (
        "products of: entries 1e300, in float32 1e37",
        ("inv_quad_logdet",),
        ("float64",),
        "the projection overflows, and an error of torch's eigenvalue solver comes out",
    ),
    *(
        (f"{kind}: 1 % larger with every call", ("logdet", "logdet, learned-krylov", "eigvalsh"), BOTH, _DRIFT)
        for kind in ("product", "SciPy product")
    ),
    *(
        (f"{kind}: 1 % larger with every call", ("svdvals",), ("float32",), _DRIFT)
        for kind in ("product", "SciPy product")
    ),
    (
        "SciPy product: NaN later",
        ("lstsq",),
        ("float32",),
        "NaN in a later product meets an SVD, whose error comes out",
    ),
]
KNOWN = {(name, call, kind): why for name, calls, kinds, why in _KNOWN for call in calls for kind in kinds}


def test_no_answer_is_silently_wrong_and_the_page_says_what_comes_back():
    # one test, not two: the calls take most of a minute
    code = (
        "import json, torch; torch.set_num_threads(1); from experiments.hostile import outcomes; "
        "print(json.dumps(outcomes()))"
    )
    command, environment = [sys.executable, "-c", code], {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert list(found) == list(HOSTILE)
    wrong = {
        (name, call, kind): why
        for name, calls in found.items()
        for call, kinds in calls.items()
        for kind, (word, why) in kinds.items()
        if word == hostile.WRONG
    }
    assert {key: why for key, why in wrong.items() if key not in KNOWN} == {}
    assert {key: why for key, why in KNOWN.items() if key not in wrong} == {}, "mended: remove them from KNOWN"
    # Where rounding differs, whether a limit is just met may differ, and with it the words of the page.
    if fingerprint() == json.loads(RECORDED.read_text())["fingerprint"]:
        page = hostile.PAGE.read_text()
        assert hostile.render(page, found) == page, "run `python -m experiments.hostile`"


def judged(answer, call: str = "linear_solve", name: str = "well-conditioned") -> tuple[str, str]:
    """The outcome of a call that returns this, or raises it."""
    problem = HOSTILE[name](torch.float64)
    _, judge = hostile.CALLS[call]

    def returned(problem: Hostile):
        if isinstance(answer, Exception):
            raise answer
        return answer(problem)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hostile.CALLS, "under test", (returned, judge))
        return hostile.outcome(problem, "under test")


def solution(change: float, **fields):
    """`linear_solve` with its value changed by a factor."""

    def call(problem: Hostile) -> rf.Solution:
        found = rf.linear_solve(problem.given, problem.rhs)
        return rf.Solution(**{**vars(found), "value": found.value * change, **fields})

    return call


def test_wrong_answers_would_be_noticed():
    assert judged(solution(1.0))[0] == hostile.RIGHT
    assert judged(solution(1 + 1e-4))[0] == hostile.WRONG
    assert judged(solution(torch.nan))[0] == hostile.WRONG
    assert judged(lambda p: 2 * rf.sample_gaussian(p.given, 256), "sample_gaussian")[0] == hostile.WRONG
    assert judged(lambda p: rf.logdet(2 * p.given), "logdet")[0] == hostile.WRONG
    assert judged(lambda p: rf.inv_quad_logdet(p.given, 1.01 * p.rhs), "inv_quad_logdet")[0] == hostile.WRONG
    assert judged(lambda p: rf.svdvals(p.given + 1e-4), "svdvals")[0] == hostile.WRONG
    assert judged(lambda p: rf.eigvalsh(p.given + 1e-4), "eigvalsh")[0] == hostile.WRONG
    assert judged(lambda p: rf.lstsq(p.given, 2 * p.rhs), "lstsq")[0] == hostile.WRONG
    shifted = torch.ones(24, dtype=torch.float64)
    longer = rf.LeastSquares(**{**vars(rf.lstsq(HOSTILE["singular"](torch.float64).matrix, shifted)), "value": shifted})
    assert judged(lambda p: longer, "lstsq", "singular")[0] == hostile.WRONG


def test_only_errors_that_name_the_argument_are_refusals():
    assert judged(ValueError("`A` must be symmetric."))[0] == hostile.REFUSED
    assert judged(ValueError("must be symmetric."))[0] == hostile.WRONG
    assert judged(RuntimeError("`A` must be symmetric."))[0] == hostile.WRONG
    assert judged(OwnError())[0] == hostile.REFUSED


def test_a_warning_without_a_status_is_not_enough():
    def warned(change: float, **fields):
        def call(problem: Hostile) -> rf.Solution:
            warnings.warn("not converged", rf.ConvergenceWarning, stacklevel=2)
            return solution(change, **fields)(problem)

        return call

    refuted, stated = torch.tensor(False), torch.tensor(1e-4, dtype=torch.float64)
    assert judged(warned(1 + 1e-4, converged=refuted, residual_norms=stated))[0] == hostile.SAYS_SO
    assert judged(warned(1 + 1e-4))[0] == hostile.WRONG
    assert judged(solution(1 + 1e-4, converged=refuted, residual_norms=stated))[0] == hostile.WRONG
    # a residual of 1e-4 that is stated as 1e-7
    assert judged(warned(1 + 1e-4, converged=refuted, residual_norms=stated / 1000))[0] == hostile.WRONG


def test_a_hang_is_noticed(monkeypatch):
    monkeypatch.setattr(hostile, "MOST_SECONDS", 1)

    def endless(problem: Hostile):
        while True:
            pass

    assert judged(endless) == (hostile.WRONG, "longer than 1 s")


@pytest.mark.parametrize("kind", DTYPES)
def test_exact_arithmetic_agrees_with_numpy_where_that_is_good(kind):
    problem = HOSTILE["condition 1e4"](DTYPES[kind])
    A, b = problem.matrix.double().numpy(), problem.rhs.double().numpy()
    exact = definite(problem.matrix, problem.rhs)
    assert exact is not None
    x = np.linalg.solve(A, b)
    np.testing.assert_allclose([exact.logdet, exact.inv_quad], [np.linalg.slogdet(A)[1], b @ x], rtol=1e-9)
    left = residual(problem.matrix, torch.from_numpy(x).to(torch.float32), problem.rhs)
    x32 = x.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(left.relative(problem.rhs), np.linalg.norm(b - A @ x32) / np.linalg.norm(b), rtol=1e-6)


@pytest.mark.parametrize("n", [24, 260])
def test_exact_arithmetic_knows_what_is_definite(n):
    name = "n = 260, singular" if n == 260 else "singular"
    A = HOSTILE[name](torch.float64).matrix
    b, eye = torch.ones(n, dtype=torch.float64), torch.eye(n, dtype=torch.float64)
    assert definite(A, b) is None
    assert definite(A - 1e-12 * eye, b) is None
    shifted = definite(A + 2.0**-40 * eye, b)
    assert shifted is not None
    # ones are an eigenvector of the path's Laplacian, to the eigenvalue 0
    assert shifted.inv_quad == pytest.approx(n * 2.0**40, rel=1e-3)
