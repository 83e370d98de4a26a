"""The methods of a LinearOperator (solve, inv_quad, inv_quad_logdet, samples), answered by `rangeformer`.

The first four replace those of `AddedDiagLinearOperator` inside a block; signatures and shapes are
upstream's. Subclasses with structure (Kronecker, low rank) inherit the replacements and are refused.
The functions ending in `_with` take any positive definite operator and a request.
"""

import torch
from linear_operator.operators import AddedDiagLinearOperator
from torch import Tensor

from gp_integration import calls, sampling
from gp_integration.covariance import kind_of, noisy_system, samplable
from gp_integration.left_alone import leave_alone, stays_with_cholesky
from gp_integration.request import SolveRequest
from gp_integration.state import SettingsBlock


def solve(
    block: SettingsBlock,
    operator: AddedDiagLinearOperator,  # shape: (*batch, n, n)
    right_tensor: Tensor,  # shape: (*any, n, k) or (n)
    left_tensor: Tensor | None = None,  # shape: (*any, o, n)
) -> Tensor:  # shape: (*broadcast, n, k), (n), (*broadcast, o, k) or (*broadcast, o)
    """A^-1 right, or left A^-1 right."""
    system = _system(block, operator)
    if system is None:
        return NotImplemented
    return solve_with(SolveRequest(block, "solve", block.options.rtol), system, right_tensor, left_tensor)


def inv_quad(
    block: SettingsBlock,
    operator: AddedDiagLinearOperator,  # shape: (*batch, n, n)
    inv_quad_rhs: Tensor,  # shape: (*batch, n, k) or (*batch, n)
    reduce_inv_quad: bool = True,
) -> Tensor:  # shape: (*batch, k) or (*batch)
    """rhs^T A^-1 rhs, summed over columns or not."""
    system = _system(block, operator)
    if system is None:
        return NotImplemented
    return inv_quad_with(SolveRequest(block, "inv_quad", block.options.rtol), system, inv_quad_rhs, reduce_inv_quad)


def inv_quad_logdet(
    block: SettingsBlock,
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
    request = SolveRequest(block, purpose, block.options.rtol)
    return inv_quad_logdet_with(request, system, inv_quad_rhs, logdet, reduce_inv_quad)


def samples(
    block: SettingsBlock,
    operator: AddedDiagLinearOperator,  # shape: (*batch, n, n)
    num_samples: int,
) -> Tensor:  # shape: (num_samples, *batch, n)
    """Samples of N(0, A)."""
    if not samplable(operator):
        block.recorder.left_alone(sampling.OTHERS)
        return NotImplemented
    return sampling.draw(block, operator, num_samples)


def solve_with(request: SolveRequest, system, right: Tensor, left: Tensor | None) -> Tensor:
    """`LinearOperator.solve` for any PSD operator."""
    vector = right.dim() == 1
    solution = calls.solve(request, system, right.unsqueeze(-1) if vector else right)
    result = solution if left is None else left @ solution
    return result.squeeze(-1) if vector else result


def inv_quad_with(request: SolveRequest, system, rhs: Tensor, reduce: bool) -> Tensor:
    """`LinearOperator.inv_quad` for any PSD operator."""
    values = calls.inv_quad(request, system, rhs.unsqueeze(-1) if rhs.dim() == 1 else rhs)
    return values.sum(-1) if reduce else values


def inv_quad_logdet_with(
    request: SolveRequest, system, rhs: Tensor | None, logdet: bool | None, reduce: bool | None
) -> tuple[Tensor, Tensor]:
    """`LinearOperator.inv_quad_logdet` for any PSD operator."""
    zero = torch.zeros([], dtype=system.dtype, device=system.device)
    if rhs is None:
        if not logdet:
            raise RuntimeError("Either `inv_quad_rhs` or `logdet` must be specified.")
        return zero, calls.logdet(request, system)
    if not logdet:
        return inv_quad_with(request, system, rhs, bool(reduce)), zero
    values, log_determinant = calls.inv_quad_logdet(request, system, rhs.unsqueeze(-1) if rhs.dim() == 1 else rhs)
    return (values.sum(-1) if reduce else values), log_determinant


def _system(block: SettingsBlock, operator: AddedDiagLinearOperator) -> AddedDiagLinearOperator | None:
    if stays_with_cholesky(block, operator):
        return None
    system = noisy_system(operator)
    if system is None:
        leave_alone(block, kind_of(operator))
    return system
