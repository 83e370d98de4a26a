"""An orthonormal basis of a block of vectors, batched and without pivoting."""

import torch

from rangeformer.shapes import Float, Tensor


def orthonormalise(
    block: Float[Tensor, "*batch n s"], *, floor: Tensor | float = 0.0
) -> tuple[Float[Tensor, "*batch n s"], Float[Tensor, "*batch s s"]]:
    """Q, C with block = Q C; columns of Q orthonormal, or zero where the block is rank deficient.

    The Gram matrix's eigenvectors twice (SVQB; Stathopoulos & Wu 2002): no pivoting, no host synchronisation,
    batched.

    Args:
        block: `(*batch, n, s)`.
        floor: Singular values at or below this are treated as zero.

    Returns:
        Q in the block's dtype and C in float64.
    """
    eps = torch.finfo(block.dtype).eps
    Q = block
    C = torch.eye(block.shape[-1], dtype=torch.float64, device=block.device)
    for sweep in range(2):
        wide = Q.to(torch.float64)
        gram = wide.mT @ wide
        scale = gram.diagonal(dim1=-2, dim2=-1).sqrt()
        unit = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))
        eigenvalues, U = torch.linalg.eigh(gram * unit.unsqueeze(-1) * unit.unsqueeze(-2))
        # The Gram matrix squares the block's rounding errors and adds its own float64 ones.
        keep = eigenvalues > max(block.shape[-1] * (10 * eps) ** 2, 1e-14)
        root = torch.where(keep, eigenvalues, torch.ones_like(eigenvalues)).sqrt()
        kept = keep.to(torch.float64).unsqueeze(-2)
        transform = unit.unsqueeze(-1) * U * (kept / root.unsqueeze(-2))
        back = (kept * U * root.unsqueeze(-2)).mT * scale.unsqueeze(-2)
        if sweep == 0:
            tiny = torch.linalg.vector_norm(back, dim=-1, keepdim=True) <= floor
            transform = transform.masked_fill(tiny.mT, 0.0)
            back = back.masked_fill(tiny, 0.0)
        Q = (wide @ transform).to(block.dtype)
        C = back @ C
    return Q, C
