"""Everybody who finds the leading eigenpairs: ARPACK, LOBPCG, subspace and block Krylov iterations, ours."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from torch import Tensor

import rangeformer as rf
import sketching
from experiments.krylov.contest import CLASSICAL, OURS, TOLERANCES, Method, Run, scipy_operator
from experiments.krylov.matrices import NUM_PAIRS, Case, Truth
from experiments.krylov.solves import RANGEFORMER

POWERS = (1, 2, 4, 8, 16)
LOOPS = (1, 2, 4, 8)
Pairs = tuple[Tensor, Tensor]  # (k,) and (n, k)


def methods(largest: float) -> list[Method]:
    """All rivals for the NUM_PAIRS largest eigenvalues.

    Args:
        largest: The largest eigenvalue, which LOBPCG is told: its tolerance is not relative.
    """
    return [
        Method("eigsh", CLASSICAL, TOLERANCES, _eigsh(None)),
        Method("eigsh, 40 vectors", CLASSICAL, TOLERANCES, _eigsh(4 * NUM_PAIRS)),
        Method("LOBPCG", CLASSICAL, TOLERANCES, _lobpcg(NUM_PAIRS, largest)),
        Method("LOBPCG, 20 vectors", CLASSICAL, TOLERANCES, _lobpcg(2 * NUM_PAIRS, largest)),
        Method("subspace iteration", CLASSICAL, POWERS, _subspace("gaussian")),
        Method("block Krylov, 10 vectors", CLASSICAL, POWERS, _block_krylov),
        Method(RANGEFORMER, OURS, LOOPS, _rangeformer),
        Method("sketch that looks first, subspace iteration", OURS, POWERS, _subspace("rangeformer")),
    ]


def worst_pair(case: Case, truth: Truth) -> Callable[[Pairs], float]:
    """The worst of ||A v - lambda v|| and |lambda - truth| over the pairs, relative to the largest eigenvalue, float64.

    A residual alone would not miss an eigenvalue that was passed over.
    """
    operator = case.operator()

    def error(pairs: Pairs) -> float:
        values, vectors = (part.to(torch.float64) for part in pairs)
        order = values.argsort(descending=True)
        values, vectors = values[order], vectors[:, order]
        vectors = vectors / torch.linalg.vector_norm(vectors, dim=0)
        residuals = torch.linalg.vector_norm(operator.matmul_precise(vectors) - vectors * values, dim=0)
        missed = (values - truth.eigenvalues.to(values.device)).abs()
        return float(torch.maximum(residuals, missed).max()) / float(truth.eigenvalues[0])

    return error


def _eigsh(num_vectors: int | None) -> Callable[[Run, float], Pairs]:
    def answer(run: Run, rtol: float) -> Pairs:
        start = torch.randn(run.case.num_rows, generator=run.generator, dtype=torch.float64).numpy()
        values, vectors = scipy.sparse.linalg.eigsh(
            scipy_operator(run.operator), NUM_PAIRS, ncv=num_vectors, v0=start, tol=rtol
        )
        return _pairs(values, vectors, run)

    return answer


def _lobpcg(block: int, largest: float) -> Callable[[Run, float], Pairs]:
    def answer(run: Run, rtol: float) -> Pairs:
        n = run.case.num_rows
        start = torch.randn(n, block, generator=run.generator, dtype=torch.float64).numpy()
        found: Any = scipy.sparse.linalg.lobpcg(
            scipy_operator(run.operator), start, tol=rtol * largest, maxiter=200, largest=True
        )
        order = np.argsort(found[0])[::-1][:NUM_PAIRS]
        return _pairs(found[0][order], found[1][:, order], run)

    return answer


def _subspace(sketch: str) -> Callable[[Run, int], Pairs]:
    def answer(run: Run, num_power_iterations: int) -> Pairs:
        found = sketching.randomized_eigh(
            run.operator,
            NUM_PAIRS,
            num_power_iterations=num_power_iterations,
            sketch=sketch,
            generator=run.generator,
        )
        values, vectors = found
        return values, vectors

    return answer


def _block_krylov(run: Run, num_iterations: int) -> Pairs:
    """Of a positive definite A singular values are eigenvalues; products with A and with A^T both count."""
    found = sketching.block_krylov_svd(
        run.operator,
        NUM_PAIRS,
        block_size=NUM_PAIRS,
        num_iterations=num_iterations,
        sketch="gaussian",
        generator=run.generator,
    )
    return found.S, found.U


def _rangeformer(run: Run, num_loops: int) -> Pairs:
    found = rf.eigsh(run.operator, NUM_PAIRS, num_loops=num_loops, generator=run.generator)
    return found.values, found.vectors


def _pairs(values: np.ndarray, vectors: np.ndarray, run: Run) -> Pairs:
    device = run.operator.device
    return torch.from_numpy(values.copy()).to(device), torch.from_numpy(vectors.copy()).to(device)
