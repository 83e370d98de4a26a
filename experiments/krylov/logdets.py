"""Estimates of log det A from products: Lanczos quadrature, Hutch++ and XTrace on log A, ours; and Cholesky."""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from gpytorch import settings
from linear_operator.operators import AddedDiagLinearOperator, ConstantDiagLinearOperator, DenseLinearOperator
from torch import Tensor

import rangeformer as rf
import sketching
from experiments.gp.methods import Record, counted_linear_cg
from experiments.krylov.contest import CLASSICAL, MAX_PASSES, OURS, Method, Run
from experiments.krylov.matrices import Case
from experiments.krylov.solves import CHOLESKY, LOOPS, RANGEFORMER
from rangeformer.krylov.block_lanczos import BlockKrylov

PROBES = (5, 15, 60)
# (probes, Lanczos steps, rank of the pivoted Cholesky preconditioner)
GPYTORCH_DEFAULT = (10, 20, 15)
QUADRATURES = ((10, 20, 100), (30, 20, 100), (30, 50, 100))
PRODUCTS = ((12, 30), (30, 30))  # (products with log A, Lanczos steps of each)


def methods() -> list[Method]:
    """All rivals; a setting buys more accuracy for more products."""
    return [
        Method("SLQ, GPyTorch's setting", CLASSICAL, (GPYTORCH_DEFAULT,), _quadrature, suits=_is_dense),
        Method("SLQ, rank 100", CLASSICAL, QUADRATURES, _quadrature, suits=_is_dense),
        Method("Hutch++ on log A", CLASSICAL, PRODUCTS, _hutchpp),
        Method("XTrace on log A", CLASSICAL, PRODUCTS, _xtrace),
        Method("control variate, rpcholesky", CLASSICAL, PROBES, _driver("rpcholesky")),
        Method("control variate, nystrom", CLASSICAL, PROBES, _driver("nystrom")),
        Method(RANGEFORMER, OURS, PROBES, _driver("rangeformer")),
        Method("RangeFormer, direct", OURS, LOOPS, _direct),
        Method(CHOLESKY, CLASSICAL, (1,), _cholesky, is_exact=True),
    ]


def error_per_row(case: Case, logdet: float) -> Callable[[float], float]:
    """|estimate - log det A| / n: nats of the log-likelihood of one data point, but for a factor of two."""
    return lambda value: abs(value - logdet) / case.num_rows


def _is_dense(case: Case) -> bool:
    return isinstance(case.matrix, Tensor)


def _quadrature(run: Run, setting: tuple[int, int, int]) -> float:
    """GPyTorch's own: Lanczos quadrature that its CG leaves behind, preconditioned where the noise is known."""
    num_probes, num_steps, rank = setting
    case = run.case
    with ExitStack() as stack, torch.no_grad(), torch.random.fork_rng(devices=_devices(run)):
        torch.manual_seed(run.generator.initial_seed())  # it draws from the global generator
        for context in (
            settings.max_cholesky_size(0),
            settings.cg_tolerance(1.0),
            settings.max_cg_iterations(MAX_PASSES),
            settings.num_trace_samples(num_probes),
            settings.max_lanczos_quadrature_iterations(num_steps),
            settings.max_preconditioner_size(rank),
            settings.min_preconditioning_size(1),
            settings.preconditioner_tolerance(1e-6),
        ):
            stack.enter_context(context)
        record = Record()
        A = DenseLinearOperator(case.matrix)
        if case.noise is not None:
            noise = ConstantDiagLinearOperator(case.matrix.new_tensor([case.noise]), case.num_rows)
            A = AddedDiagLinearOperator(A, noise)
            run.operator.reads.entries += rank * case.num_rows
        with counted_linear_cg(record):
            value = float(A.logdet())
    run.extra_passes, run.extra_matvecs = record.num_iterations, record.num_iterations * num_probes
    return value


def _hutchpp(run: Run, setting: tuple[int, int]) -> float:
    """Tr log A by Hutch++ (Meyer et al. 2021)."""
    num_products, num_steps = setting
    log_A = _logarithm(run.operator, num_steps)
    return sketching.estimate_trace(log_A, num_products, sketch="gaussian", generator=run.generator).value


def _xtrace(run: Run, setting: tuple[int, int]) -> float:
    """Tr log A by XTrace (Epperly, Tropp & Webber 2024)."""
    num_products, num_steps = setting
    return sketching.xtrace(_logarithm(run.operator, num_steps), num_products, generator=run.generator).value


def _logarithm(operator: rf.MatrixOperator, num_steps: int) -> rf.MatrixOperator:
    """Log A, its products by block Lanczos from the vectors it is applied to."""

    def log_product(vectors: Tensor) -> Tensor:
        capacity = num_steps * vectors.shape[-1]
        krylov = BlockKrylov(lambda block: (image := operator.matmul(block), image), vectors, capacity=capacity)
        while krylov.num_blocks < num_steps and krylov.expand():
            pass
        return krylov.combine(krylov.function_of_start(torch.log)[0])

    return rf.as_operator((log_product, tuple(operator.shape)), dtype=operator.dtype, device=operator.device)


def _driver(preconditioner: str) -> Callable[[Run, int], float]:
    def answer(run: Run, num_probes: int) -> float:
        with run.stopwatch() as run.setup:
            P = rf.build_preconditioner(run.operator, preconditioner, num_rhs=num_probes, generator=run.generator)
        return float(
            rf.logdet(
                run.operator, preconditioner=P, num_probes=num_probes, generator=run.generator, fallback=None
            ).value
        )

    return answer


def _direct(run: Run, num_loops: int) -> float:
    found = rf.logdet(
        run.operator, method="learned-krylov", num_loops=num_loops, generator=run.generator, fallback=None
    )
    return float(found.value)


def _cholesky(run: Run, _: int) -> float:
    factor = torch.linalg.cholesky(run.case.dense(run.case.rhs.dtype))
    return 2 * float(factor.diagonal().to(torch.float64).log().sum())


def _devices(run: Run) -> list:
    return [run.operator.device] if run.operator.device.type == "cuda" else []
