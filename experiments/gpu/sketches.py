"""Low-rank approximation of a large dense matrix that is already on the device: ours against `torch.svd_lowrank`."""

from collections.abc import Callable

import torch
from torch import Tensor

import sketching
from experiments.gpu.clock import timed
from experiments.gpu.machine import free_bytes
from experiments.gpu.part import Request

RANK, NUM_OVERSAMPLES = 100, 10
Factors = tuple[Tensor, Tensor, Tensor]


def measure(request: Request) -> dict:
    """Time and Frobenius error over the best rank-r's, at equal passes and at everybody's defaults."""
    device = request.device
    n = 200 if request.smoke else 20_000 if device.type == "cuda" else 2000
    rank = 10 if request.smoke else RANK
    if 3 * 4 * n * n > 0.8 * free_bytes(device):
        return {"n": n, "rank": rank, "rows": [], "complete": True, "message": "the matrix does not fit"}
    A, optimum = decaying(n, rank, request.seed, device)
    rows, complete = [], True
    for label, passes, run in _contenders(A, rank, request.seed):
        if request.seconds_left < 0:
            complete = False
            break
        found: list[Factors] = []
        time = timed(lambda run=run, found=found: found.append(run()), device, num_runs=3)
        error = _error(A, found[-1])
        rows.append({"method": label, "passes": passes, "time": time.as_dict(), "excess": error / optimum - 1})
    return {"n": n, "rank": rank, "rows": rows, "complete": complete}


def decaying(n: int, rank: int, seed: int, device: torch.device) -> tuple[Tensor, float]:
    """An n x n matrix with singular values 1 / j in Haar-like bases, float32.

    The error of its best approximation.
    """
    generator = torch.Generator().manual_seed(seed)
    width = min(n, 10 * rank)
    values = 1 / torch.arange(1, width + 1, dtype=torch.float32)
    U, V = (torch.linalg.qr(torch.randn(n, width, generator=generator).to(device)).Q for _ in range(2))
    return (U * values.to(device)) @ V.mT, float(values[rank:].double().square().sum().sqrt())


def _contenders(A: Tensor, rank: int, seed: int) -> list[tuple[str, int, Callable[[], Factors]]]:
    def ours(sketch: str, num_power_iterations: int) -> Callable[[], Factors]:
        def run() -> Factors:
            found = sketching.randomized_svd(
                A,
                rank,
                num_oversamples=NUM_OVERSAMPLES,
                sketch=sketch,
                num_power_iterations=num_power_iterations,
                generator=torch.Generator().manual_seed(seed),
            )
            return found.U, found.S, found.Vh

        return run

    def torch_lowrank(num_iterations: int) -> Callable[[], Factors]:
        def run() -> Factors:
            with torch.random.fork_rng(devices=[A.device] if A.is_cuda else []):  # it draws from the global generator
                torch.manual_seed(seed)
                U, S, V = torch.svd_lowrank(A, q=rank + NUM_OVERSAMPLES, niter=num_iterations)
            return U[:, :rank], S[:rank], V[:, :rank].mT

        return run

    found = []
    for count in (0, 1, 2):
        found.append((f"torch.svd_lowrank, niter = {count}", 2 + 2 * count, torch_lowrank(count)))
        for sketch in ("rangeformer", "sampled-rows", "gaussian"):
            found.append((f"randomized_svd, {sketch}, {count} power iterations", 2 + 2 * count, ours(sketch, count)))
    return found


def _error(A: Tensor, factors: Factors, rows_at_once: int = 4096) -> float:
    U, S, Vh = factors
    squares = sum(
        float((A[i : i + rows_at_once] - (U[i : i + rows_at_once] * S) @ Vh).double().square().sum())
        for i in range(0, len(A), rows_at_once)
    )
    return squares**0.5
