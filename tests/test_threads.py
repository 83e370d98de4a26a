"""Two threads: after `torch.set_num_threads(2)`, LU of a batch of large matrices never returns in torch 2.13.

Nothing public may depend on it. The calls run in a process of their own, since the number of threads cannot be set back
without harm, on batches of a size at which LU fails (more than one matrix, more than 128 rows).
"""

import json
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable

import pytest
import torch
from helpers import conditioned, kernel, normal, relative_residuals, seeded, with_spectrum

import rangeformer as rf
import sketching
from rangeformer.baselines import PaperConfig, PaperRangeFormer
from rangeformer.models.checkpoint import load

N, ROWS = 200, 260
CHECKS: dict[str, Callable[[], None]] = {}


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS[function.__name__] = function
    return function


def close(found, known, rtol: float = 1e-6) -> None:
    torch.testing.assert_close(found, known, rtol=rtol, atol=rtol * float(known.abs().max()))


def definite() -> torch.Tensor:
    return torch.stack([kernel(N, seed=0), kernel(N, seed=1, noise=0.1), conditioned(N, 1e3)])


def mixed() -> torch.Tensor:
    """Definite, indefinite and singular."""
    spectra = torch.linspace(0.1, 1, N), torch.linspace(-1, 1, N + 1)[1:], torch.linspace(0, 1, N)
    return torch.stack([with_spectrum(one, seed=seed) for seed, one in enumerate(spectra)])


def exactly(A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """By eigenvalues, one matrix at a time: no LU in the oracle either."""
    solved = []
    for matrix, rhs in zip(A, b, strict=True):
        values, vectors = torch.linalg.eigh(matrix)
        solved.append(vectors @ ((vectors.mT @ rhs) / values[:, None]))
    return torch.stack(solved)


def true_logdet(A: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.linalg.eigvalsh(matrix).log().sum() for matrix in A])


@check
def solves():
    A, b = definite(), normal(3, N, 2)
    for options in ({}, {"preconditioner": None}, {"method": "cg"}, {"preconditioner": "rpcholesky"}):
        close(rf.linear_solve(A, b, rtol=1e-10, **options).value, exactly(A, b), 1e-5)


@check
def solves_of_a_mixed_batch():
    A, b = mixed(), normal(3, N, 2)
    solution = rf.linear_solve(A, b)
    assert (relative_residuals(A, solution.value, b)[:2] < 1e-6).all()
    close(solution.value[:2], exactly(A[:2], b[:2]), 1e-4)


@check
def gradients():
    A, b = definite().requires_grad_(), normal(3, N, 2)
    rf.linear_solve(A, b, rtol=1e-10).value.sum().backward()
    x, g = exactly(A.detach(), b), exactly(A.detach(), torch.ones_like(b))
    close(A.grad, -g @ x.mT, 1e-4)


@check
def logdets():
    A = definite()
    close(rf.logdet(A).value, true_logdet(A))
    both = rf.inv_quad_logdet(A, normal(3, N, 2))
    close(both.logdet, true_logdet(A))
    found = rf.logdet(mixed())
    close(found.value[:1], true_logdet(mixed()[:1]))
    assert not bool(found.value[1].isfinite())
    large = kernel(ROWS + 40)
    estimate = rf.logdet(large, generator=seeded())
    assert abs(estimate.value - torch.linalg.eigvalsh(large).log().sum()) <= 4 * estimate.standard_error + 1e-6


@check
def learned_krylov():
    A, b = definite(), normal(3, N, 2)
    close(rf.linear_solve(A, b, method="learned-krylov", rtol=1e-8).value, exactly(A, b), 1e-4)
    close(rf.logdet(A, method="learned-krylov").value, true_logdet(A), 1e-4)
    skew = definite() + 0.1 * (normal(3, N, N) - normal(3, N, N).mT)
    found = rf.linear_solve(skew, b, method="learned-krylov", rtol=1e-8)
    assert (relative_residuals(skew, found.value, b) < 1e-6).all()


@check
def eigenvalues():
    A = mixed()
    close(rf.eigvalsh(A).value, torch.stack([torch.linalg.eigvalsh(one) for one in A]), 1e-5)


@check
def singular_values_and_least_squares():
    A, b = normal(2, ROWS, N), normal(2, ROWS, 2)
    close(rf.svdvals(A).value, torch.stack([torch.linalg.svdvals(one) for one in A]), 1e-5)
    found = rf.lstsq(A, b, rtol=1e-8).value
    assert float((A.mT @ (A @ found - b)).norm() / (A.mT @ b).norm()) < 1e-5


@check
def traces():
    A = definite()
    inverses = torch.stack([(1 / torch.linalg.eigvalsh(one)).sum() for one in A])
    close(rf.inverse_trace(A).value, inverses, 1e-3)
    close(rf.trace(A).value, A.diagonal(dim1=-2, dim2=-1).sum(-1), 1e-6)


@check
def samples():
    drawn = rf.sample_gaussian(definite(), 4, generator=seeded())
    assert drawn.shape == (4, 3, N)
    assert drawn.isfinite().all()


@check
def models_that_answer_themselves():
    A, b = definite(), normal(3, N, 2)
    model = load("pure")
    together = rf.linear_solve(A, b, method="learned-krylov", model=model, fallback="dense", rtol=1e-6)
    close(together.value, exactly(A, b), 1e-2)
    paper = PaperRangeFormer(PaperConfig(operation="solve", n_max=N)).eval()
    with torch.no_grad():
        answer = paper(A.float(), b[..., 0].float())
    assert answer.shape[0] == 3
    assert answer.isfinite().all()


@check
def sketches():
    for sketch in ("rangeformer", "gaussian", "sampled-rows", "sparse-sign", "trig"):
        spectrum = 0.5 ** torch.arange(N, dtype=torch.float64)
        A = normal(ROWS, ROWS, seed=4)[:, :N] @ with_spectrum(spectrum)
        found = sketching.randomized_svd(A, 12, sketch=sketch)
        assert float((A - (found.U * found.S) @ found.Vh).norm() / A.norm()) < 1e-2
    square = kernel(N)
    for algorithm in (sketching.nystrom, sketching.randomized_eigh, sketching.pivoted_nystrom):
        algorithm(square, 10)
    sketching.cur(A, 8)
    sketching.interpolative(A, 8)
    sketching.one_view_svd(A, 8)
    assert abs(sketching.xtrace(square, 60).value / float(square.trace()) - 1) < 0.1


def main() -> None:
    """Run every check and print a line of JSON before and after each."""
    torch.set_num_threads(2)
    warnings.simplefilter("ignore")
    for name, function in CHECKS.items():
        print(json.dumps([name, "did not return"]), flush=True)
        try:
            function()
        except BaseException:
            print(json.dumps([name, traceback.format_exc()]), flush=True)
        else:
            print(json.dumps([name, "right"]), flush=True)


@pytest.fixture(scope="module")
def outcomes():
    """What became of each check."""
    code = f"import sys; sys.path[:0] = {[os.path.dirname(__file__), *filter(None, sys.path)]!r}\n"
    code += "import test_threads; test_threads.main()"
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    environment["OMP_WAIT_POLICY"] = "passive"  # threads that spin make this a hundred times slower on a busy machine
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, check=False
        )
        out, err = done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        out, err = (text.decode() if isinstance(text, bytes) else text or "" for text in (error.stdout, error.stderr))
    found = dict(json.loads(line) for line in out.splitlines() if line.startswith("["))
    assert found, err
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_it_returns_and_is_right(outcomes, name):
    assert outcomes.get(name, "was never reached") == "right"
