"""The standard error of the marginal likelihood's gradient, and how many probes a smaller one takes."""

import torch
from torch import Tensor

import rangeformer as rf
from gp_integration.request import SolveRequest

_MOST_PROBES = 512
# Standard errors are themselves uncertain: aim a little below.
_CAUTION = 1.2


def relative_gradient_error(request: SolveRequest, result: rf.InvQuadLogdet) -> float | None:
    """The standard error of the gradient over the gradient's norm, over all leaves of the graph together.

    Args:
        request: Whose options say whether it is wanted.
        result: The call's, with its graph.

    Returns:
        The share, or None if it is not wanted or there is no gradient.
    """
    if request.block.options.gradient_rtol is None or not result.logdet.requires_grad:
        return None
    leaves = _leaves(result.logdet, result.inv_quad)
    loss = (result.inv_quad.sum() + result.logdet.sum()) / 2
    gradient = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
    error = rf.gradient_error(result, leaves)
    size = _norm(list(gradient))
    return _norm(error) / 2 / size if size > 0 else 0.0


def more_probes(request: SolveRequest, result: rf.InvQuadLogdet, error: float | None) -> int | None:
    """How many probes bring the error to `gradient_rtol`; None if it is there, or if there are as many as may be."""
    wanted, used = request.block.options.gradient_rtol, result.log_determinant.num_probes
    if error is None or wanted is None or error <= wanted or not 0 < used < _MOST_PROBES:
        return None
    return min(_MOST_PROBES, max(used + 1, round(used * (_CAUTION * error / wanted) ** 2)))


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([tensor.detach().double().square().sum() for tensor in tensors]).sum().sqrt())


def _leaves(*values: Tensor) -> list[Tensor]:
    """The tensors that require grad from which these were computed."""
    leaves: dict[int, Tensor] = {}
    seen: set[object] = set()
    waiting = [value.grad_fn for value in values if value.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            leaves[id(variable)] = variable
        waiting += [following for following, _ in node.next_functions if following is not None]
    return list(leaves.values())
