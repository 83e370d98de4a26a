"""The paper's error of a prediction, the checks whose absence it hides.

Answers that it accepts though they are trivial.

Norms are entrywise, |X| = sum |x_ij|. A prediction is right at tolerance t if its error is below t. M is the input as
the model read it, rounded to three digits.

    eigenvectors, P = (d, H)    |H^T M H - diag d| / |d|, both predicted
    svd, P = (s, U, V)          |U^T M V - diag s| / |s|
    inversion                   |M P - I| / n
    all others                  |P - O| / |O|, O the target as it is written (transposition: M^T)

The first two never ask that H, U or V be orthogonal, of unit columns, or that d be eigenvalues: zero, one true pair
with zeros beside it, and every congruence M = L D L^T pass. The third exceeds any tolerance for the true inverse,
rounded, of an ill-conditioned matrix. `checks` says what is missing.
"""

import torch

from rangeformer.baselines.lawt.tasks import Shape, answer
from rangeformer.shapes import Float, Tensor

TOLERANCES = (0.05, 0.02, 0.01, 0.005)


def errors(
    task: str,
    predicted: Float[Tensor, "b r s"],
    target: Float[Tensor, "b r s"],
    read: Float[Tensor, "b p q"],
    shape: Shape,
) -> Float[Tensor, " b"]:
    """The paper's error of each prediction.

    Args:
        task: Which.
        predicted: P, decoded; NaN where malformed.
        target: O, decoded.
        read: M, decoded.
        shape: m and n.

    Returns:
        Errors `(b,)`; infinite where the prediction is malformed or overflows.
    """
    if task == "eigenvectors":
        d, H = predicted[:, 0], predicted[:, 1:]
        found = _ratio(H.mT @ read @ H - torch.diag_embed(d), d)
    elif task == "svd":
        s, U, V = _parts(predicted, shape)
        found = _ratio(U.mT @ read @ V - torch.diag_embed(s), s)
    elif task == "inversion":
        identity = torch.eye(shape[0], dtype=read.dtype, device=read.device).expand_as(read)
        found = _ratio(read @ predicted - identity, identity)
    elif task == "transposition":
        found = _ratio(predicted - read.mT, read)
    else:
        found = _ratio(predicted - target, target)
    return found.nan_to_num(torch.inf, torch.inf)


def checks(
    task: str,
    predicted: Float[Tensor, "b r s"],
    target: Float[Tensor, "b r s"],
    read: Float[Tensor, "b p q"],
    shape: Shape,
) -> dict[str, Float[Tensor, " b"]]:
    """What the paper's error does not ask, as relative errors in the same norm; nothing where it asks all.

    Eigenvectors: "orthogonality" |H^T H - I| / n over all pairs of columns, "values" of d against the eigenvalues,
    "residual" |M H - H diag d| / |M|. SVD: the same of U and V, s, and |M V - U diag s| / |M|. Inversion: "distance"
    |P - O| / |O| to the true inverse, and "condition", cond(M).
    """
    if task == "eigenvectors":
        d, H = predicted[:, 0], predicted[:, 1:]
        found = {
            "orthogonality": _departure(H),
            "values": _ratio(d - target[:, 0], target[:, 0]),
            "residual": _ratio(read @ H - H * d.unsqueeze(-2), read),
        }
    elif task == "svd":
        s, U, V = _parts(predicted, shape)
        found = {
            "orthogonality": torch.maximum(_departure(U), _departure(V)),
            "values": _ratio(s - target[:, 0], target[:, 0]),
            "residual": _ratio(read @ V - U * s.unsqueeze(-2), read),
        }
    elif task == "inversion":
        found = {"distance": _ratio(predicted - target, target), "condition": torch.linalg.cond(read)}
    else:
        return {}
    return {name: value.nan_to_num(torch.inf, torch.inf) for name, value in found.items()}


def trivial_answers(task: str, read: Float[Tensor, "b p q"]) -> dict[str, Float[Tensor, "b r s"]]:
    """Answers without a solution in them, for the eigenvectors, the SVD, eigenvalues and singular values.

    "zero" is all zeros, "one pair" has the leading pair and zeros, "congruence" has M = L D L^T's D and L^-T (for the
    eigenvectors only), "mean" the mean answer of the set.
    """
    if task not in ("eigenvectors", "svd", "eigenvalues", "singular_values"):
        raise ValueError(f"`task` must be one with eigenvalues or singular values. Got {task!r}.")
    exact = answer(task, read)
    trivial = {"zero": torch.zeros_like(exact)}
    if task in ("eigenvalues", "singular_values"):
        return trivial | {"mean": exact.mean(0, keepdim=True).expand_as(exact)}
    trivial["one pair"] = torch.cat([exact[..., :1], torch.zeros_like(exact[..., 1:])], -1)
    if task == "eigenvectors":
        trivial["congruence"] = _congruence(read)
    return trivial


def _parts(stacked: Float[Tensor, "b r k"], shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """Singular values, left and right vectors."""
    m = shape[0]
    return stacked[:, 0], stacked[:, 1 : 1 + m], stacked[:, 1 + m :]


def _ratio(difference: Tensor, size: Tensor) -> Float[Tensor, " b"]:
    """|difference| / |size|, 0 / 0 taken for 0 as the paper's program does in effect."""
    top, bottom = difference.flatten(1).abs().sum(1), size.flatten(1).abs().sum(1)
    return torch.where((top == 0) & (bottom == 0), torch.zeros_like(top), top / bottom)


def _departure(H: Float[Tensor, "b m k"]) -> Float[Tensor, " b"]:
    """|H^T H - I| / k."""
    identity = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device).expand(len(H), -1, -1)
    return _ratio(H.mT @ H - identity, identity)


def _congruence(M: Float[Tensor, "b n n"]) -> Float[Tensor, "b r n"]:
    """D above L^-T of M = L D L^T without pivoting: L^-1 M L^-T = D, and D holds no eigenvalue."""
    n = M.shape[-1]
    L, rest = torch.eye(n, dtype=M.dtype, device=M.device).expand_as(M).clone(), M.clone()
    for j in range(n):
        L[:, j:, j] = rest[:, j:, j] / rest[:, j : j + 1, j]
        rest = rest - rest[:, j, j].view(-1, 1, 1) * L[:, :, j : j + 1] * L[:, None, :, j]
    eye = torch.eye(n, dtype=M.dtype, device=M.device)
    H = torch.linalg.solve_triangular(L, eye.expand_as(L), upper=False, unitriangular=True).mT
    D = (H.mT @ M @ H).diagonal(dim1=-2, dim2=-1)
    return torch.cat([D.unsqueeze(-2), H], -2)
