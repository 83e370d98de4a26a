"""Solves, quadratic forms, log-determinants and samples of kernel plus noise, for direct users.

These replace the methods of `AddedDiagLinearOperator` inside a block; signatures and shapes are
upstream's. Subclasses with structure (Kronecker, low rank) inherit the replacements and are refused.
"""

import torch
from linear_operator.operators import AddedDiagLinearOperator
from torch import Tensor

from gp_integration import calls as certified
from gp_integration import sampling
from gp_integration.covariance import kind_of, noisy_system, samplable
from gp_integration.dispatch import stays_with_cholesky
from gp_integration.notices import leave_alone
from gp_integration.request import Task
from gp_integration.state import Block


def solve(
    block: Block,
    operator: AddedDiagLinearOperator,  # shape: (*batch, n, n)
    right_tensor: Tensor,  # shape: (*any, n, k) or (n)
    left_tensor: Tensor | None = None,  # shape: (*any, o, n)
) -> Tensor:  # shape: (*broadcast, n, k), (n), (*broadcast, o, k) or (*broadcast, o)
    """A^-1 right, or left A^-1 right."""
    system = _system(block, operator)
    if system is None:
        return NotImplemented
    return solve_with(Task(block, "solve", block.options.tolerance), system, right_tensor, left_tensor)


def inv_quad(
    block: Block,
    operator: AddedDiagLinearOperator,  # shape: (*batch, n, n)
    inv_quad_rhs: Tensor,  # shape: (*batch, n, k) or (*batch, n)
    reduce_inv_quad: bool = True,
) -> Tensor:  # shape: (*batch, k) or (*batch)
    """rhs^T A^-1 rhs, summed over columns or not."""
    system = _system(block, operator)
    if system is None:
        return NotImplemented
    return inv_quad_with(Task(block, "inv_quad", block.options.tolerance), system, inv_quad_rhs, reduce_inv_quad)


def inv_quad_logdet(
    block: Block,
    operator: AddedDiagLinearOperator,  # shape: (*batch, n, n)
    inv_quad_rhs: Tensor | None = None,  # shape: (*batch, n, k) or (*batch, n)
    logdet: bool | None = False,
    reduce_inv_quad: bool | None = True,
) -> tuple[Tensor, Tensor]:  # shapes: (*batch, k) or (*batch), (*batch)
    """Both at once; upstream returns zero for what is not asked for."""
    system = _system(block, operator)
    if system is None:
        return NotImplemented
    purpose = "inv_quad_logdet" if logdet else "inv_quad"
    task = Task(block, purpose, block.options.tolerance)
    return inv_quad_logdet_with(task, system, inv_quad_rhs, logdet, reduce_inv_quad)


def samples(
    block: Block,
    operator: AddedDiagLinearOperator,  # shape: (*batch, n, n)
    num_samples: int,
) -> Tensor:  # shape: (num_samples, *batch, n)
    """Samples of N(0, A)."""
    if not samplable(operator):
        block.recorder.left_alone("samples of other distributions")
        return NotImplemented
    return sampling.draw(block, operator, num_samples)


def solve_with(task: Task, system, right: Tensor, left: Tensor | None) -> Tensor:
    """`LinearOperator.solve` for any PSD operator."""
    vector = right.dim() == 1
    solution = certified.solve(task, system, right.unsqueeze(-1) if vector else right)
    result = solution if left is None else left @ solution
    return result.squeeze(-1) if vector else result


def inv_quad_with(task: Task, system, rhs: Tensor, reduce: bool) -> Tensor:
    """`LinearOperator.inv_quad` for any PSD operator."""
    values = certified.inv_quad(task, system, rhs.unsqueeze(-1) if rhs.dim() == 1 else rhs)
    return values.sum(-1) if reduce else values


def inv_quad_logdet_with(
    task: Task, system, rhs: Tensor | None, logdet: bool | None, reduce: bool | None
) -> tuple[Tensor, Tensor]:
    """`LinearOperator.inv_quad_logdet` for any PSD operator."""
    zero = torch.zeros([], dtype=system.dtype, device=system.device)
    if rhs is None:
        if not logdet:
            raise RuntimeError("Either `inv_quad_rhs` or `logdet` must be specified.")
        return zero, certified.logdet(task, system)
    if not logdet:
        return inv_quad_with(task, system, rhs, bool(reduce)), zero
    values, log_determinant = certified.inv_quad_logdet(task, system, rhs.unsqueeze(-1) if rhs.dim() == 1 else rhs)
    return (values.sum(-1) if reduce else values), log_determinant


def _system(block: Block, operator: AddedDiagLinearOperator) -> AddedDiagLinearOperator | None:
    if stays_with_cholesky(block, operator):
        return None
    system = noisy_system(operator)
    if system is None:
        leave_alone(block, kind_of(operator))
    return system
