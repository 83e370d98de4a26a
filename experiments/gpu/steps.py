"""One training step of an exact GP, float32.

Cholesky where it fits, GPyTorch's CG default and tuned, ours with its set-up apart.

A step is the loss (y^T A^-1 y + log det A + n log 2 pi) / 2n and its gradient in length-scales, scale and noise.
GPyTorch and ours multiply by the same operator; the matrix is stored where it fits and recomputed by blocks of rows
where it does not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from linear_operator.operators import AddedDiagLinearOperator, ConstantDiagLinearOperator
from torch import Tensor

import rangeformer as rf
from experiments.common import datasets
from experiments.gp.methods import METHODS
from experiments.gpu.chunked import ChunkedKernel, Stored
from experiments.gpu.clock import Timing, timed
from experiments.gpu.machine import free_bytes
from experiments.gpu.part import Request
from experiments.krylov.matrices import HYPERPARAMETERS

TOLERANCE, PROBE_TOLERANCE = 1e-3, 5e-2  # of our training solves, as `use_rangeformer` asks for
NUM_PROBES = 15
_SHARE_OF_MEMORY = 0.8


@dataclass(frozen=True)
class Problem:
    """Data and the logarithms of the hyperparameters, which the gradient is taken by."""

    inputs: Tensor  # (n, d)
    target: Tensor  # (n,)
    parameters: Tensor  # (d + 2,): length-scales, scale, noise
    stored: Stored

    def kernel(self, parameters: Tensor) -> tuple[ChunkedKernel, Tensor]:
        """K and the noise, with the graph to the parameters."""
        lengthscales, (scale, noise) = parameters[:-2].exp(), parameters[-2:].exp()
        return ChunkedKernel(self.inputs / lengthscales, scale, stored=self.stored), noise

    def covariance(self, parameters: Tensor) -> AddedDiagLinearOperator:
        """A = K + noise I."""
        kernel, noise = self.kernel(parameters)
        return AddedDiagLinearOperator(kernel, ConstantDiagLinearOperator(noise.unsqueeze(-1), len(self.target)))

    def loss(self, inv_quad: Tensor, logdet: Tensor) -> Tensor:
        """Of a data point."""
        n = len(self.target)
        return (inv_quad + logdet + n * math.log(2 * math.pi)) / (2 * n)


Step = tuple[float, Tensor]  # the loss and its gradient


def measure(request: Request, n: int) -> dict:
    """Every method at n rows."""
    device = request.device
    problem = problem_of(request, n)
    truth = _truth(problem)
    rows, complete = [], True
    for label, step, needed in _contenders(problem, request.seed):
        if request.seconds_left < 0:
            complete = False
            break
        if needed > _SHARE_OF_MEMORY * free_bytes(device):
            rows.append({"method": label, "fits": False})
            continue
        found: list[Step] = []
        time = timed(lambda step=step, found=found: found.append(step()), device, num_runs=_runs(n), num_warm_up=1)
        rows.append({"method": label, "fits": True, "time": time.as_dict(), **_errors(found[-1], truth)})
    setup = _setup(problem, request.seed)
    return {
        "n": n,
        "is_stored": problem.stored.matrix is not None,
        "has_truth": truth is not None,
        "rows": rows,
        "setup": {name: time.as_dict() for name, time in setup.items()},
        "complete": complete,
    }


def problem_of(request: Request, n: int, dtype: torch.dtype = torch.float32) -> Problem:
    """N rows of the shipped table, of a synthetic one where it is missing or too short.

    K stored where half of the memory holds it.
    """
    name = datasets.default_name()
    table = datasets.load(name)
    if len(table.target) < 1.1 * n:
        name, table = datasets.SYNTHETIC, datasets.synthetic()
    split = datasets.split(table, n, 1, request.seed, dtype, request.device)
    values = datasets.read_hyperparameters(HYPERPARAMETERS / f"{name}.json")
    natural = [*values["lengthscales"], values["signal_std"] ** 2, values["noise_std"] ** 2]
    parameters = torch.tensor(natural, dtype=dtype, device=request.device).log()
    problem = Problem(split.train_x, split.train_y, parameters, Stored(None))
    if n * n * split.train_x.element_size() > free_bytes(request.device) / 2:
        return problem
    return Problem(problem.inputs, problem.target, parameters, Stored(problem.kernel(parameters)[0].computed()))


def _contenders(problem: Problem, seed: int) -> list[tuple[str, Callable[[], Step], int]]:
    """Label, step, and bytes that it needs beside the stored matrix."""
    n, size = len(problem.target), problem.target.element_size()
    some = 2000 * n * size  # vectors, columns, neighbours
    return [
        # the factor, the inverse and what the library needs to make one from the other
        ("Cholesky, by hand", lambda: _by_hand(problem)[0], 3 * n * n * size),
        ("CG, default", lambda: _gpytorch(problem, "cg-default", seed), some),
        ("CG, tuned", lambda: _gpytorch(problem, "cg-tuned", seed), some),
        ("RangeFormer", lambda: _ours(problem, seed, None), some),
        ("RangeFormer, structure reused", _reusing(problem, seed), some),
    ]


def _gpytorch(problem: Problem, method: str, seed: int) -> Step:
    parameters = problem.parameters.clone().requires_grad_()
    with METHODS[method].active(seed):
        inv_quad, logdet = problem.covariance(parameters).inv_quad_logdet(problem.target.unsqueeze(-1), logdet=True)
        loss = problem.loss(inv_quad, logdet)
        loss.backward()
    return loss.item(), _gradient(parameters)


def _ours(problem: Problem, seed: int, structure: rf.Structure | None) -> Step:
    parameters = problem.parameters.clone().requires_grad_()
    operator = rf.as_operator(problem.covariance(parameters))
    generator = torch.Generator().manual_seed(seed)
    P = rf.build_preconditioner(operator, num_rhs=NUM_PROBES + 1, structure=structure, generator=generator)
    found = rf.inv_quad_logdet(
        operator,
        problem.target,
        preconditioner=P,
        num_probes=NUM_PROBES,
        rtol=TOLERANCE,
        probe_rtol=PROBE_TOLERANCE,
        fallback=None,
        generator=generator,
    )
    loss = problem.loss(found.inv_quad, found.logdet)
    loss.backward()
    return loss.item(), _gradient(parameters)


def _reusing(problem: Problem, seed: int) -> Callable[[], Step]:
    """As in training from the second step on: pivots and neighbours of the step before."""
    known: list[rf.Structure | None] = []

    def step() -> Step:
        if not known:
            known.append(_preconditioner(problem, seed, None).structure)
        return _ours(problem, seed, known[0])

    return step


def _preconditioner(problem: Problem, seed: int, structure: rf.Structure | None) -> rf.Preconditioner:
    with torch.no_grad():
        operator = rf.as_operator(problem.covariance(problem.parameters))
        generator = torch.Generator().manual_seed(seed)
        return rf.build_preconditioner(operator, num_rhs=NUM_PROBES + 1, structure=structure, generator=generator)


def _setup(problem: Problem, seed: int) -> dict[str, Timing]:
    """What building the preconditioner takes, with and without a structure to reuse."""
    device, structure = problem.target.device, _preconditioner(problem, seed, None).structure
    runs = _runs(len(problem.target))
    return {
        "whole": timed(lambda: _preconditioner(problem, seed, None), device, num_runs=runs, num_warm_up=0),
        "reused": timed(lambda: _preconditioner(problem, seed, structure), device, num_runs=runs, num_warm_up=0),
    }


def _by_hand(problem: Problem) -> tuple[Step, tuple[Tensor, Tensor]]:
    """Loss, gradient and the gradient's two parts from one factor and one inverse, K itself recomputed by blocks."""
    parameters = problem.parameters.clone().requires_grad_()
    kernel, noise = problem.kernel(parameters)
    n, y = len(problem.target), problem.target.unsqueeze(-1)
    A = kernel.computed()
    A.diagonal().add_(noise.detach())
    factor = torch.linalg.cholesky(A)
    del A
    solution = torch.cholesky_solve(y, factor)
    logdet = 2 * factor.diagonal().log().sum()
    inverse = torch.cholesky_inverse(factor)
    del factor
    quadratic = _gradient_of(
        kernel, noise, parameters, lambda i, j: -solution[i:j] @ solution.mT, -solution.square().sum()
    )
    trace = _gradient_of(kernel, noise, parameters, lambda i, j: inverse[i:j], inverse.diagonal().sum())
    loss = problem.loss((y * solution).sum().detach(), logdet)
    parts = (quadratic / (2 * n), trace / (2 * n))
    return (loss.item(), parts[0] + parts[1]), parts


def _gradient_of(
    kernel: ChunkedKernel, noise: Tensor, parameters: Tensor, weights: Callable[[int, int], Tensor], trace: Tensor
) -> Tensor:
    """Of sum_ij W_ij A_ij, W by blocks of rows, with tr W."""
    inputs, scale = kernel.weighted_gradient(weights)
    outputs, gradients = [kernel.inputs, kernel.scale, noise], [inputs, scale, trace]
    return torch.autograd.grad(outputs, parameters, gradients, retain_graph=True)[0].to(torch.float64)


def _truth(problem: Problem) -> tuple[Step, float] | None:
    """Float64 Cholesky and the yardstick of a gradient's error; None where it does not fit."""
    if 2.2 * 8 * len(problem.target) ** 2 > _SHARE_OF_MEMORY * free_bytes(problem.target.device):
        return None
    wide = Problem(problem.inputs.double(), problem.target.double(), problem.parameters.double(), Stored(None))
    step, parts = _by_hand(wide)
    return step, sum(float(part.norm()) for part in parts)


def _errors(step: Step, truth: tuple[Step, float] | None) -> dict:
    loss, gradient = step
    if truth is None:
        return {"loss": loss, "loss_error": None, "gradient_error": None}
    (exact_loss, exact_gradient), scale = truth
    error = float((gradient.to(torch.float64) - exact_gradient).norm()) / scale
    return {"loss": loss, "loss_error": abs(loss - exact_loss), "gradient_error": error}


def _gradient(parameters: Tensor) -> Tensor:
    assert parameters.grad is not None
    return parameters.grad


def _runs(n: int) -> int:
    return 3 if n <= 50_000 else 2
