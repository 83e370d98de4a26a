"""`gradient_error`: how far the gradient of a log-determinant may be off because its probes are few."""

from collections.abc import Sequence

import torch

from rangeformer.results import InvQuadLogdet, LogDeterminant
from rangeformer.shapes import Tensor


def gradient_error(result: LogDeterminant | InvQuadLogdet, parameters: Sequence[Tensor]) -> list[Tensor]:
    """One standard deviation of the gradient of log det A in each parameter, over the probes.

    The estimate's gradient is the mean of one term for every probe; its spread is measured by differentiating each
    term: as many backward passes as there are probes. Ninety per cent of intervals of +- 1.76 of these deviations
    cover the true derivative with the default 15 probes (Student's t with 14 degrees of freedom).

    Args:
        result: Of `rf.logdet` or `rf.inv_quad_logdet`, called with gradients enabled. Its graph is used again: call
            this before `.backward()`, or keep the graph there with `retain_graph=True`.
        parameters: Tensors that A is built from and that require grad.

    Returns:
        A tensor for each parameter, in its shape; zeros where the gradient is exact.

    Raises:
        ValueError: If the result does not carry a gradient.

    Example:
        >>> import torch, rangeformer as rf
        >>> x = torch.rand(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        >>> A = torch.exp(-torch.cdist(x, x) / scale) + 0.1 * torch.eye(400)
        >>> (error,) = rf.gradient_error(rf.logdet(A), [scale])
        >>> bool(0 < error < 50)
        True
    """
    found = result.log_determinant if isinstance(result, InvQuadLogdet) else result
    if not found.value.requires_grad:
        raise ValueError(
            "`result` must carry a gradient. Got one that was computed without; call with gradients enabled and an A "
            "that is built from tensors which require grad."
        )
    if found.probe_terms is None:
        return [torch.zeros_like(parameter) for parameter in parameters]
    terms = found.probe_terms.flatten(0, -2).sum(0) if found.probe_terms.dim() > 1 else found.probe_terms
    gradients = [
        torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        for term in terms
    ]
    return [torch.stack(parts).std(0) / len(terms) ** 0.5 for parts in zip(*gradients, strict=True)]
