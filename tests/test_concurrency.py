"""Threads, tasks, processes and interrupts: each sees its own options, and nothing global is left changed."""

import asyncio
import contextlib
import multiprocessing
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gpytorch
import linear_operator
import numpy as np
import pytest
import torch
from helpers import NAMES, convergence_warnings_ignored, kernel, normal

import rangeformer as rf
import sketching
from gp_integration import patches
from gp_integration.settings import last_report, use_rangeformer
from sketching.estimators import RangeFormerPCA, RangeFormerSVD
from tests.gp_integration.gp_models import data, exact_gp, loss_of, predict, truth, value_and_gradient

N = 300
ROOT = Path(rf.__file__).parent.parent


def attributes() -> list[object]:
    """What a block replaces, None where a class only inherits it."""
    return [patch.owner.__dict__.get(patch.name) for patch in patches.PATCHES]


@pytest.fixture(autouse=True)
def _left_as_found():
    before = attributes()
    yield
    assert all(a is b for a, b in zip(attributes(), before, strict=True)), "GPyTorch was left patched"
    assert patches._num_users == 0
    assert use_rangeformer.is_default()


def options(rtol: float, **more) -> use_rangeformer:
    """Iterations, however small the model."""
    return use_rangeformer(rtol=rtol, eval_rtol=rtol / 10, min_size=0, num_columns=10, num_neighbors=4, **more)


def steps(index: int, rtol: float) -> tuple:
    """Two training steps and a prediction, with blocks inside that are switched off, or left by an error."""
    model, (x, _) = exact_gp(N, seed=index), data(3, seed=9)
    with options(rtol) as recorder:
        for _ in range(2):
            loss, gradient = value_and_gradient(model)
            with contextlib.suppress(ZeroDivisionError), options(rtol / 3) as inner:
                value_and_gradient(model)
                _ = 1 / 0
            with use_rangeformer(False), torch.no_grad():
                predict(model, x)
        with torch.no_grad():
            mean = predict(model, x).mean
        assert last_report() == inner.report()
    return (loss, gradient, mean), recorder.report(), inner.report()


@pytest.fixture(autouse=True)
def settings_of_gpytorch_as_they_were():
    """GPyTorch keeps its settings in class attributes, which its own blocks in several threads may leave changed."""
    names = ("_state", "_global_value", "_global_double_value", "_global_float_value", "_global_half_value")
    everything = [one for module in (gpytorch.settings, linear_operator.settings) for one in vars(module).values()]
    owners = [one for one in everything if isinstance(one, type)]
    before = [(owner, name, vars(owner)[name]) for owner in owners for name in names if name in vars(owner)]
    yield
    for owner, name, value in before:
        setattr(owner, name, value)


def test_eight_threads_with_eight_tolerances():
    tolerances = [10.0 ** -(2 + index / 2) for index in range(8)]
    alone = [steps(index, rtol) for index, rtol in enumerate(tolerances)]
    barrier = threading.Barrier(8)

    def together(index):
        barrier.wait(60)
        return steps(index, tolerances[index])

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(together, range(8)))
    for index, (rtol, expected, found) in enumerate(zip(tolerances, alone, results, strict=True)):
        (loss, gradient, mean), report, inner = found
        # another thread may round differently
        torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-9)
        assert [r.num_iterations() for r in found[1:]] == [r.num_iterations() for r in expected[1:]]
        assert {call.rtol for call in report.calls} == {rtol, rtol / 10}
        assert {call.rtol for call in inner.calls} == {rtol / 3}
        assert 0 < report.worst_residual("log_prob") <= rtol
        model = exact_gp(N, seed=index)
        exact_loss, exact_gradient, scale = truth(model)
        assert float((loss - exact_loss).abs()) <= 1e-2
        assert float((gradient - exact_gradient).norm()) <= 0.1 * float(scale)
        with torch.no_grad():
            torch.testing.assert_close(mean, predict(model, data(3, seed=9)[0]).mean, rtol=0, atol=20 * rtol)
    assert len({report.num_iterations() for _, report, _ in results}) > 2, "the tolerances made a difference"


def test_tasks_and_the_threads_they_start():
    """A task keeps its options over every `await`, and hands them to the threads that it asks to work for it."""

    async def work(index):
        rtol = 10.0 ** -(2 + index)
        model = exact_gp(N, seed=index)
        with options(rtol) as recorder:
            first = value_and_gradient(model)
            await asyncio.sleep(0)
            second = await asyncio.to_thread(value_and_gradient, model)
            await asyncio.sleep(0)
        assert torch.equal(first[0], second[0])
        return rtol, recorder.report()

    async def main():
        return await asyncio.gather(*(work(index) for index in range(4)))

    for rtol, report in asyncio.run(main()):
        assert [call.rtol for call in report.calls] == [rtol] * 2


def in_child(seed: int) -> tuple[float, float, int]:
    """Relative error of a solve; a loss; calls of the block."""
    torch.set_num_threads(1)
    A = kernel(N, seed=seed)
    error = float((rf.linear_solve(A, A @ normal(N, 5), rtol=1e-10).value - normal(N, 5)).norm())
    model = exact_gp(N, seed=seed)
    with options(1e-4) as recorder:
        loss, _ = value_and_gradient(model)
    return error, float(loss), recorder.report().num_calls()


# 3.12 and later warn of any fork of a process that has threads; whether it is safe here is the question
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    rf.linear_solve(kernel(N), normal(N))  # models are loaded and caches filled before the fork
    with options(1e-4), multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.map_async(in_child, range(3)).get(120)
        assert use_rangeformer.on()
    for seed, (error, loss, num_calls) in enumerate(results):
        assert error < 1e-5
        assert loss == pytest.approx(in_child(seed)[1], rel=1e-9)
        assert num_calls == 1


def test_backward_after_the_block_and_on_another_thread():
    model = exact_gp(N)

    with options(1e-6):
        reference = torch.autograd.grad(loss_of(model), list(model.parameters()))
        losses = [loss_of(model) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        gradients = list(pool.map(lambda loss: torch.autograd.grad(loss, list(model.parameters())), losses))
    for gradient in gradients:
        assert all(torch.equal(a, b) for a, b in zip(gradient, reference, strict=True))
    _, exact, scale = truth(model)
    assert float((torch.cat([g.flatten() for g in reference]) - exact).norm()) <= 0.1 * float(scale)


class Interrupter:
    """Raises KeyboardInterrupt at the `at`-th line of the packages that is run; counts them if it is never met."""

    def __init__(self, at: int, files: tuple[str, ...]):
        self.at, self.files, self.count = at, files, 0

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(self.files):
            return None
        return self.line

    def line(self, frame, event, argument):
        if event == "line":
            self.count += 1
            if self.count == self.at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.line

    def run(self, call) -> bool:
        """Whether the call was interrupted."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            call()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False


def test_interrupted_anywhere_in_a_training_step():
    model = exact_gp(60)

    def step():
        with options(1e-6):
            return value_and_gradient(model)

    expected = step()
    files = tuple(f"{ROOT / package}/" for package in ("rangeformer", "gp_integration"))
    count = Interrupter(-1, files)

    def body():
        with options(1e-6):
            count.run(lambda: value_and_gradient(model))

    body()
    assert count.count > 500
    for at in random.Random(0).sample(range(1, count.count + 1), 30):
        interrupter = Interrupter(at, files)
        with options(1e-6):
            assert interrupter.run(lambda: value_and_gradient(model)), at
            assert use_rangeformer.on(), at
        assert use_rangeformer.is_default(), at
        assert patches._num_users == 0, at
        found = step()
        assert torch.equal(found[0], expected[0]), at
        assert torch.equal(found[1], expected[1]), at


A, B, WIDE = kernel(120), normal(120, 3), normal(60, 40)
LEARNED = {"method": "learned-krylov"}
CALLS = {
    **{f"linear_solve {P}": lambda P=P: rf.linear_solve(A, B, preconditioner=P) for P in (*NAMES, "cholesky")},
    "linear_solve learned": lambda: rf.linear_solve(A, B, **LEARNED),
    "linear_solve pure": lambda: rf.linear_solve(A, B, model=rf.load("pure"), **LEARNED),
    "linear_solve gradient": lambda: rf.linear_solve(A.clone().requires_grad_(), B).value.sum().backward(),
    "logdet": lambda: rf.logdet(kernel(300)),
    "logdet gradient": lambda: rf.logdet(kernel(300).requires_grad_()).value.backward(),
    "logdet learned": lambda: rf.logdet(A, **LEARNED),
    "inv_quad_logdet": lambda: rf.inv_quad_logdet(A, B),
    "eigvalsh": lambda: rf.eigvalsh(A),
    "eigsh": lambda: rf.eigsh(A, 4),
    "svdvals": lambda: rf.svdvals(WIDE),
    "lstsq": lambda: rf.lstsq(WIDE, normal(60)),
    "trace": lambda: rf.trace(A),
    "inverse_trace": lambda: rf.inverse_trace(A),
    "inverse_matmul": lambda: rf.inverse_matmul(A, B),
    "build_preconditioner": lambda: rf.build_preconditioner(A),
    "load": lambda: [rf.load(name) for name in (None, "learned-krylov", "pure")],
    "untrained": lambda: [m.untrained() for m in (rf.RangeFormer, rf.LearnedKrylovModel, sketching.RandomFeatures)],
    **{
        f"randomized_svd {name}": lambda name=name: sketching.randomized_svd(WIDE, 5, sketch=name)
        for name in ("rangeformer", "rangeformer-untrained", "gaussian", "sampled-rows", "sparse-sign", "trig")
    },
    "block_krylov_svd": lambda: sketching.block_krylov_svd(WIDE, 5),
    "one_view_svd": lambda: sketching.one_view_svd(WIDE, 5),
    "range_finder": lambda: sketching.range_finder(WIDE, 5),
    "randomized_eigh": lambda: sketching.randomized_eigh(A, 5),
    "nystrom": lambda: (sketching.nystrom(A, 5), sketching.pivoted_nystrom(A, 5)),
    "cur": lambda: (sketching.cur(WIDE, 5), sketching.interpolative(WIDE, 5)),
    "xtrace": lambda: (sketching.xtrace(A, 20), sketching.estimate_trace(A, 20), sketching.estimate_diagonal(A, 20)),
    "finetune": lambda: sketching.finetune(None, [WIDE, 2 * WIDE], 5, max_rows=10, num_steps=2),
    "RangeFormerSVD": lambda: RangeFormerSVD(3, random_state=0).fit(WIDE.numpy()),
    "RangeFormerPCA": lambda: RangeFormerPCA(3, random_state=0).fit_transform(WIDE.numpy()),
    "gp step": lambda: _gp_step(),
}


def _gp_step() -> None:
    model = exact_gp(60)
    with options(1e-4):
        value_and_gradient(model)
        predict(model, data(5)[0]).covariance_matrix.sum().backward()


def global_state() -> list[object]:
    numpy_state = np.random.get_state()  # noqa: NPY002 - whether it moves is the question
    flags = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.are_deterministic_algorithms_enabled()
    return [
        torch.get_rng_state().tolist(),
        numpy_state[1].tolist(),
        numpy_state[2:],
        torch.get_num_threads(),
        torch.get_num_interop_threads(),
        torch.get_float32_matmul_precision(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        np.geterr(),
        flags,
    ]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no grad"])
def test_nothing_global_changes(name, grad):
    if not grad and "gradient" in name or not grad and name in ("finetune", "gp step"):
        pytest.skip("it differentiates")
    with torch.set_grad_enabled(grad), convergence_warnings_ignored():
        before = global_state()
        CALLS[name]()
        after = global_state()
    assert after == before


def test_samples_may_draw_from_the_global_generator():
    """The documented exception, which also shows that a change would be seen."""
    before = global_state()
    rf.sample_gaussian(A, 2)
    after = global_state()
    assert after[0] != before[0]
    assert after[1:] == before[1:]
