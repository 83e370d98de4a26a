"""Which covariance matrices `rangeformer` handles: dense ones, with or without noise on the diagonal."""

import torch
from gpytorch.lazy import LazyEvaluatedKernelTensor
from linear_operator.operators import (
    AddedDiagLinearOperator,
    BatchRepeatLinearOperator,
    ConstantMulLinearOperator,
    DenseLinearOperator,
    DiagLinearOperator,
    LinearOperator,
    MaskedLinearOperator,
    MatmulLinearOperator,
    RootLinearOperator,
    SumLinearOperator,
)
from torch import Tensor

# What can be solved to a tolerance worth stating.
DTYPES = (torch.float32, torch.float64)
_LOW_RANK = (DiagLinearOperator, MatmulLinearOperator, RootLinearOperator)


class PredictiveCovariance(SumLinearOperator):
    """A predictive covariance computed by `prediction`: an ordinary sum with a type of its own.

    The type is what lets samples from it be drawn here while those of other models, whose
    covariances are sums too, are left alone.
    """

    def _getitem(self, row_index, col_index, *batch_indices):
        part = super()._getitem(row_index, col_index, *batch_indices)
        same = isinstance(row_index, slice) and row_index == col_index
        return PredictiveCovariance(*part.linear_ops) if same else part


def is_dense(operator: LinearOperator) -> bool:
    """Whether an evaluated operator costs n^2 per product anyway, so that nothing is lost by densifying.

    Their structure gains more than a preconditioner: Toeplitz, Kronecker, interpolated, low-rank and block
    operators say False. A sum of kernels is dense if one of them is and the others have low rank.
    """
    if isinstance(operator, DenseLinearOperator | PredictiveCovariance):
        return True
    if isinstance(operator, ConstantMulLinearOperator | BatchRepeatLinearOperator):
        return is_dense(operator.base_linear_op)
    if type(operator) is AddedDiagLinearOperator:
        return is_dense(operator._linear_op)
    if type(operator) is SumLinearOperator:
        # A part with its own diagonal marks variational posteriors (jitter), which are left alone.
        if any(isinstance(part, AddedDiagLinearOperator) for part in operator.linear_ops):
            return False
        others = [part for part in operator.linear_ops if not is_dense(part)]
        return len(others) < len(operator.linear_ops) and all(isinstance(part, _LOW_RANK) for part in others)
    return False


def noisy_system(operator: LinearOperator) -> AddedDiagLinearOperator | None:
    """The covariance as dense kernel plus noise, evaluated once, in the autograd graph.

    Args:
        operator: Any covariance, `(*batch, n, n)`: lazy, masked (missing observations) or repeated.

    Returns:
        `AddedDiagLinearOperator(dense K, noise)`, or None if it is not of that form; it
        is left alone then.
    """
    if operator.dtype not in DTYPES:
        return None
    if isinstance(operator, MaskedLinearOperator):
        system = noisy_system(operator.base) if operator.row_eq_col_mask else None
        return None if system is None else _select(system, operator.row_mask)
    if isinstance(operator, BatchRepeatLinearOperator):
        system = noisy_system(operator.base_linear_op)
        return None if system is None else _repeat(system, operator.batch_repeat)
    if type(operator) is not AddedDiagLinearOperator:
        return None
    operator = operator.evaluate_kernel()
    if type(operator) is not AddedDiagLinearOperator or not is_dense(operator._linear_op):
        return None
    return dense_plus_diagonal(operator._linear_op.to_dense(), operator._diag_tensor._diagonal())


def samplable(operator: LinearOperator) -> bool:
    """Whether samples from this covariance are drawn here: dense kernels, predictions, either plus noise."""
    if isinstance(operator, LazyEvaluatedKernelTensor):
        return is_dense(operator.evaluate_kernel())
    if type(operator) is AddedDiagLinearOperator:
        return samplable(operator._linear_op)
    if isinstance(operator, ConstantMulLinearOperator | BatchRepeatLinearOperator):
        return samplable(operator.base_linear_op)
    if type(operator) is SumLinearOperator:
        return all(samplable(part) for part in operator.linear_ops)
    if isinstance(operator, MatmulLinearOperator):  # D K D, as BoTorch undoes standardisation
        factors = (operator.left_linear_op, operator.right_linear_op)
        others = [factor for factor in factors if not isinstance(factor, DiagLinearOperator)]
        return len(others) == 1 and samplable(others[0])
    return is_dense(operator)


def kind_of(operator: LinearOperator) -> str:
    """A name for a covariance that is left alone, for the warning."""
    if operator.dtype not in DTYPES:
        return f"matrices of {operator.dtype}"
    name = type(operator).__name__
    known = {
        "LowRankRootAddedDiagLinearOperator": "sparse GP regression (SGPR) and other low-rank kernels",
        "KroneckerProductAddedDiagLinearOperator": "Kronecker multitask GPs",
    }
    if name in known:
        return known[name]
    if isinstance(operator, AddedDiagLinearOperator):
        base = operator._linear_op
        base = base.evaluate_kernel() if isinstance(base, LazyEvaluatedKernelTensor) else base
        name = type(base).__name__
    elif isinstance(operator, LazyEvaluatedKernelTensor):
        name = type(operator.evaluate_kernel()).__name__
    return f"covariances of structure {name}"


def kernels_of(operator: object) -> list[torch.nn.Module]:
    """The kernels behind a covariance that has not been evaluated yet."""
    if isinstance(operator, LazyEvaluatedKernelTensor):
        return [operator.kernel]
    if isinstance(operator, LinearOperator):
        return [kernel for part in operator._args for kernel in kernels_of(part)]
    return []


def lazy_inputs_of(operator: object) -> list[Tensor]:
    """The inputs at which a covariance that has not been evaluated yet will be."""
    if isinstance(operator, LazyEvaluatedKernelTensor):
        return [operator.x1]
    if isinstance(operator, LinearOperator):
        return [inputs for part in operator._args for inputs in lazy_inputs_of(part)]
    return []


def dense_plus_diagonal(
    kernel: Tensor,  # shape: (*batch, n, n)
    noise: Tensor,  # shape: (*batch, n)
) -> AddedDiagLinearOperator:
    """K + diag(noise), both with the full batch shape and in the wider of their types, as GPyTorch adds them."""
    dtype = torch.promote_types(kernel.dtype, noise.dtype)
    kernel, noise = kernel.to(dtype), noise.to(dtype)
    batch_shape = torch.broadcast_shapes(kernel.shape[:-2], noise.shape[:-1])
    kernel = kernel.expand(*batch_shape, *kernel.shape[-2:])
    noise = noise.expand(*batch_shape, kernel.shape[-1])
    return AddedDiagLinearOperator(DenseLinearOperator(kernel), DiagLinearOperator(noise))


def _select(system: AddedDiagLinearOperator, mask: Tensor) -> AddedDiagLinearOperator:
    kernel = system._linear_op.to_dense()[..., mask, :][..., mask]
    return dense_plus_diagonal(kernel, system._diag_tensor._diagonal()[..., mask])


def _repeat(system: AddedDiagLinearOperator, times: torch.Size) -> AddedDiagLinearOperator:
    kernel, noise = system._linear_op.to_dense(), system._diag_tensor._diagonal()
    missing = len(times) - (kernel.dim() - 2)
    kernel = kernel[(None,) * max(missing, 0)].repeat(*times, 1, 1)
    noise = noise[(None,) * max(missing, 0)].repeat(*times, 1)
    return dense_plus_diagonal(kernel, noise)
