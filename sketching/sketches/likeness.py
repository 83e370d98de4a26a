"""Which members of a family a matrix is like, told by the rows that were read of it.

The mean of a family is the best distribution for a member of which nothing is known. Once rows R have been read, those
members count for more in whose leading space they lie. If member i misses a share p_i of their energy, a normal
distribution whose noise is what was missed gives c rows the likelihood p_i^(-d / 2) for every d numbers in them that
are independent of each other; entries of a row are not, and one number for each row, d = c, is what was found to do
best. So the distribution is the mixture

    sum_i w_i A_i^T A_i / |A_i|_F^2,    w_i proportional to p_i^(-c / 2),

attention of what was read over what is remembered, from nearly the mean after a few rows to the nearest member after
many.
"""

import torch

from rangeformer.shapes import Float, Tensor

_LEAST_MISSED = 1e-12  # share of the rows' energy below which members are alike


def mixture(
    rows: Float[Tensor, "c e"], directions: Float[Tensor, "e k"], members: Float[Tensor, "b k k"], num_columns: int
) -> Float[Tensor, "e k"]:
    """Features whose Psi Psi^T is the mixture, of Frobenius norm one.

    Args:
        rows: R, at some entries or all of n.
        directions: U at the same entries, orthonormal over all n.
        members: F_i, columns in falling order: member i is U F_i F_i^T U^T.
        num_columns: n.
    """
    coordinates = rows @ directions if len(directions) == num_columns else rows @ torch.linalg.pinv(directions).mT
    per_entry = num_columns / len(directions)
    outside = per_entry * (rows - coordinates @ directions.mT).square().sum()
    leading = _unit(members[..., : -(-members.shape[-1] // 2)])  # as many as a sketch has columns, see `finetune`
    inside = (coordinates - (coordinates @ leading) @ leading.mT).square().sum((-2, -1))
    missed = (outside + inside).clamp_min(_LEAST_MISSED * per_entry * rows.square().sum())
    weights = torch.softmax(-len(rows) / 2 * missed.clamp_min(torch.finfo(missed.dtype).tiny).log(), 0)
    energies, turn = torch.linalg.eigh(torch.einsum("b,bij,bkj->ik", weights, members, members))
    features = directions @ (turn * energies.clamp_min(0).sqrt())
    return features / torch.linalg.matrix_norm(features).clamp_min(torch.finfo(features.dtype).tiny)


def _unit(columns: Float[Tensor, "b k h"]) -> Float[Tensor, "b k h"]:
    """Orthogonal columns with length one; those without any stay as they are."""
    lengths = torch.linalg.vector_norm(columns, dim=-2, keepdim=True)
    return columns / torch.where(lengths > 0, lengths, 1)
