"""Everybody who solves A x = rhs, at a ladder of relative residuals.

Ours by preconditioner, directly, and as a warm start.
"""

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import scipy.sparse.linalg
import torch
from gpytorch import settings
from linear_operator.operators import AddedDiagLinearOperator, ConstantDiagLinearOperator, DenseLinearOperator
from linear_operator.utils import linear_cg
from torch import Tensor

import rangeformer as rf
from experiments.common import classical
from experiments.krylov.contest import CLASSICAL, MAX_PASSES, OURS, TOLERANCES, Method, Run, scipy_operator
from experiments.krylov.matrices import KERNEL, Case
from rangeformer.models.looped_model import LoopedModel

LOOPS = (4, 8, 16)
CHOLESKY, RANGEFORMER = "Cholesky", "RangeFormer"
_GMRES_RESTART = 200  # vectors kept: more than any of the others holds
Columns = Callable[[Run], Tensor]


def methods(num_columns: int, pure: LoopedModel | None) -> list[Method]:
    """All rivals for that many right-hand sides.

    Args:
        num_columns: The leading columns of a case's right-hand sides.
        pure: The pure member, for a warm start; None leaves that one out.
    """

    def rhs(run: Run) -> Tensor:
        return run.case.rhs[:, :num_columns]

    found = [
        Method("CG", CLASSICAL, TOLERANCES, _cg(rhs)),
        Method("Jacobi-CG", CLASSICAL, TOLERANCES, _cg(rhs, preconditioned=True)),
        Method("GPyTorch CG, rank 15", CLASSICAL, TOLERANCES, _gpytorch_cg(rhs, 15), suits=_is_kernel),
        Method("GPyTorch CG, rank 100", CLASSICAL, TOLERANCES, _gpytorch_cg(rhs, 100), suits=_is_kernel),
    ]
    if num_columns == 1:
        # one column at a time is all that they offer
        found += [
            Method("MINRES", CLASSICAL, TOLERANCES, _minres(rhs)),
            Method("GMRES", CLASSICAL, TOLERANCES, _gmres(rhs)),
        ]
    else:
        found.append(Method("block CG", CLASSICAL, TOLERANCES, _driver(rhs, None, method="block-cg")))
    for name, rank in (
        ("rpcholesky", 100),
        ("rpcholesky", 400),
        ("nystrom", 100),
        ("nystrom", 400),
        ("pivoted-cholesky", 100),
    ):
        found.append(Method(f"{name}, rank {rank}", CLASSICAL, TOLERANCES, _driver(rhs, name, rank=rank)))
    found += [
        Method(RANGEFORMER, OURS, TOLERANCES, _driver(rhs, "rangeformer")),
        Method("RangeFormer, untrained", OURS, TOLERANCES, _driver(rhs, "rangeformer-untrained")),
        Method("RangeFormer, direct", OURS, LOOPS, _direct(rhs)),
        Method("warm start (4 loops), Jacobi-CG", OURS, TOLERANCES, _warm_start(rhs, None, 4)),
    ]
    if pure is not None and num_columns == 1:
        found.append(Method("warm start (pure, 16 loops), Jacobi-CG", OURS, TOLERANCES, _warm_start(rhs, pure, 16)))
    return [*found, Method(CHOLESKY, CLASSICAL, TOLERANCES[-1:], _cholesky(rhs), is_exact=True)]


def residual(case: Case, num_columns: int) -> Callable[[Tensor], float]:
    """The worst column's relative residual, recomputed in float64 from the solution."""
    rhs, operator = case.rhs[:, :num_columns].to(torch.float64), case.operator()
    norms = torch.linalg.vector_norm(rhs, dim=0)

    def error(solution: Tensor) -> float:
        difference = rhs - operator.matmul_precise(solution.to(torch.float64))
        return float((torch.linalg.vector_norm(difference, dim=0) / norms).max())

    return error


def _is_kernel(case: Case) -> bool:
    return case.kind == KERNEL


def _cg(rhs: Columns, *, preconditioned: bool = False) -> Callable[[Run, float], Tensor]:
    def answer(run: Run, rtol: float) -> Tensor:
        precondition = classical.jacobi(run.operator.diagonal()) if preconditioned else None
        return classical.conjugate_gradients(
            run.operator.matmul, rhs(run), MAX_PASSES, precondition, until=rtol
        ).solution

    return answer


def _gpytorch_cg(rhs: Columns, rank: int) -> Callable[[Run, float], Tensor]:
    """Its CG and its pivoted Cholesky preconditioner.

    It stops on the mean residual, so a tenth of the tolerance is asked for.
    """

    def answer(run: Run, rtol: float) -> Tensor:
        case, columns = run.case, rhs(run)
        with ExitStack() as stack, torch.no_grad():
            for context in (
                settings.max_preconditioner_size(rank),
                settings.preconditioner_tolerance(1e-6),
                settings.min_preconditioning_size(1),
            ):
                stack.enter_context(context)
            with run.stopwatch() as run.setup:
                noise = ConstantDiagLinearOperator(columns.new_tensor([case.noise]), case.num_rows)
                precondition, _, _ = AddedDiagLinearOperator(DenseLinearOperator(case.matrix), noise)._preconditioner()
            run.operator.reads.entries += rank * case.num_rows
            share = 1.0 if columns.shape[-1] == 1 else 0.1
            return linear_cg(
                run.operator.matmul,
                columns,
                tolerance=share * rtol,
                # its default of 1e-10 bounds squares of residuals from below: it stalls just above 1e-6
                eps=1e-30,
                stop_updating_after=1e-15,
                max_iter=MAX_PASSES,
                max_tridiag_iter=0,
                preconditioner=precondition,
            )

    return answer


def _minres(rhs: Columns) -> Callable[[Run, float], Tensor]:
    """Its own stopping rule divides by ||A|| ||x||, which is looser than the relative residual.

    It is asked again until that is met.
    """

    def answer(run: Run, rtol: float) -> Tensor:
        A, target = scipy_operator(run.operator), rhs(run).cpu().numpy()[:, 0]
        solution, asked = np.zeros_like(target), rtol
        left = MAX_PASSES
        while left > 0:
            before = run.operator.reads.passes
            solution, _ = scipy.sparse.linalg.minres(A, target, x0=solution, rtol=asked, maxiter=left)
            true = np.linalg.norm(target - A @ solution) / np.linalg.norm(target)
            left -= run.operator.reads.passes - before
            if true <= rtol or asked < 1e-15:
                break
            asked *= 0.1 * rtol / true
        return _as_columns(solution, run)

    return answer


def _gmres(rhs: Columns) -> Callable[[Run, float], Tensor]:
    def answer(run: Run, rtol: float) -> Tensor:
        A, target = scipy_operator(run.operator), rhs(run).cpu().numpy()[:, 0]
        restart = min(_GMRES_RESTART, run.case.num_rows)
        solution, _ = scipy.sparse.linalg.gmres(
            A, target, rtol=rtol, atol=0.0, restart=restart, maxiter=max(1, MAX_PASSES // restart)
        )
        return _as_columns(solution, run)

    return answer


def _driver(
    rhs: Columns, preconditioner: str | None, *, rank: int | None = None, method: str = "auto"
) -> Callable[[Run, float], Tensor]:
    """`linear_solve`, which iterates alike with everybody's preconditioner."""

    def answer(run: Run, rtol: float) -> Tensor:
        columns = rhs(run)
        with run.stopwatch() as run.setup:
            P = rf.build_preconditioner(
                run.operator, preconditioner, num_columns=rank, num_rhs=columns.shape[-1], generator=run.generator
            )
        return rf.linear_solve(
            run.operator, columns, rtol=rtol, preconditioner=P, method=method, max_iterations=MAX_PASSES, fallback=None
        ).value

    return answer


def _direct(rhs: Columns) -> Callable[[Run, int], Tensor]:
    def answer(run: Run, num_loops: int) -> Tensor:
        return _by_model(run.operator, rhs(run), None, num_loops)

    return answer


def _warm_start(rhs: Columns, model: LoopedModel | None, num_loops: int) -> Callable[[Run, float], Tensor]:
    """The paper's refinement: what the model says is where CG starts."""

    def answer(run: Run, rtol: float) -> Tensor:
        columns = rhs(run)
        with run.stopwatch() as run.setup:
            start = _by_model(run.operator, columns, model, num_loops)
        left = columns - run.operator.matmul(start)
        shares = torch.linalg.vector_norm(columns, dim=0) / torch.linalg.vector_norm(left, dim=0)
        precondition = classical.jacobi(run.operator.diagonal())
        correction = classical.conjugate_gradients(
            run.operator.matmul, left, MAX_PASSES, precondition, until=rtol * float(shares.min())
        )
        return start + correction.solution

    return answer


def _by_model(operator: rf.MatrixOperator, columns: Tensor, model: LoopedModel | None, num_loops: int) -> Tensor:
    return rf.linear_solve(
        operator, columns, method="learned-krylov", model=model, num_loops=num_loops, fallback=None
    ).value


def _cholesky(rhs: Columns) -> Callable[[Run, float], Tensor]:
    def answer(run: Run, _: float) -> Tensor:
        columns = rhs(run)
        return torch.cholesky_solve(columns, torch.linalg.cholesky(run.case.dense(columns.dtype)))

    return answer


def _as_columns(solution: np.ndarray, run: Run) -> Tensor:
    return torch.from_numpy(solution).to(run.operator.device).unsqueeze(-1)
