"""Extending an orthonormal basis by the directions of a block, also where the block brings none."""

import torch

from rangeformer.randomness import draw_normal
from rangeformer.shapes import Float, Tensor


def new_directions(
    Q: Float[Tensor, "m k"], block: Float[Tensor, "m b"], generator: torch.Generator
) -> Float[Tensor, "m b"]:
    """Orthonormal columns, orthogonal to Q, that span with Q what the block spans with it.

    A block of which Q spans all but rounding would leave directions made of rounding, which are orthogonal to nothing.
    Random ones take their place, a restart that also finds the further eigenvectors of a multiple eigenvalue.

    Args:
        Q: Orthonormal columns.
        block: At most m - k columns.
        generator: Source of random directions.
    """
    room = block.shape[1]
    size = torch.linalg.matrix_norm(block, ord=2)
    least = size * torch.finfo(block.dtype).eps * max(block.shape) ** 0.5
    outside = block - Q @ (Q.mT @ block)
    U, sizes, _ = torch.linalg.svd(outside, full_matrices=False)
    kept = _orthogonal_to(Q, U[:, sizes > least])
    if kept.shape[1] == room:
        return kept
    shape = (len(Q), room - kept.shape[1])
    fresh = draw_normal(shape, generator, dtype=block.dtype, device=block.device)
    return torch.cat([kept, _orthogonal_to(torch.cat([Q, kept], -1), fresh)], -1)


def _orthogonal_to(Q: Float[Tensor, "m k"], block: Float[Tensor, "m b"]) -> Float[Tensor, "m b"]:
    """Projected, normalised, and both again: twice is enough."""
    for _ in range(2):
        block = torch.linalg.qr(block - Q @ (Q.mT @ block)).Q
    return block
