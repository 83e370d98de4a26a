"""Row tokens: what they recover, and what they must not depend on."""

import pytest
import torch
from pivoted_examples import pivot_columns

from rangeformer.distributions import kernel_matrix
from rangeformer.models.embedding import RowTokens, embed_rows
from rangeformer.operators import as_operator
from rangeformer.preconditioners.pivoted import pivoted_cholesky


def tensors(tokens: RowTokens) -> dict[str, torch.Tensor]:
    return {
        "similarity": tokens.similarity.whitened,
        "similarity scale": tokens.similarity.scale,
        "similarity statistics": tokens.similarity.statistics,
        "spectral": tokens.spectral.whitened,
        "spectral scale": tokens.spectral.scale,
        "row scalars": tokens.row_scalars,
        "context": tokens.context,
        "share": tokens.residual_share,
        "explained": tokens.explained,
        "relative": tokens.relative_diagonal,
    }


def assert_same(first: RowTokens, second: RowTokens, *, atol: float = 1e-6) -> None:
    for name, value in tensors(first).items():
        torch.testing.assert_close(
            tensors(second)[name], value, atol=atol, rtol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_similarity_channels_recover_the_points_of_a_gaussian_kernel(seed):
    """-log of a Gaussian kernel is half a squared distance: 2 channels carry everything, and they are the points."""
    points = torch.randn(200, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    kernel = kernel_matrix(points, "rbf")
    pivoted = pivoted_cholesky(as_operator(kernel), 20, generator=torch.Generator().manual_seed(seed))
    # the correlations of this kernel reach 1e-10; scaling the points keeps them above the floor
    kernel = kernel_matrix(points / 3, "rbf")
    pivoted = pivoted_cholesky(as_operator(kernel), 12, generator=torch.Generator().manual_seed(seed))
    channels = embed_rows(pivoted.factor[None], pivoted.residual_diagonal[None], pivoted.diagonal[None]).similarity
    assert channels.scale[0, 2] < 1e-2 * channels.scale[0, 1]
    centred = points - points.mean(0)
    plane = channels.whitened[0, :, :2]
    fit = plane @ torch.linalg.lstsq(plane, centred).solution
    assert torch.linalg.matrix_norm(fit - centred) < 1e-2 * torch.linalg.matrix_norm(centred)


def test_rotation_of_the_columns_changes_nothing():
    factor, residual, diagonal = pivot_columns(60, 8)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    assert_same(embed_rows(factor, residual, diagonal), embed_rows(factor @ rotation, residual, diagonal))


@pytest.mark.parametrize("scale", [1e-12, 7.0, 1e12])
def test_scale_of_the_matrix_changes_nothing(scale):
    factor, residual, diagonal = pivot_columns(60, 8)
    scaled = embed_rows(factor * scale**0.5, residual * scale, diagonal * scale)
    assert_same(embed_rows(factor, residual, diagonal), scaled)


def test_noise_is_seen_in_the_row_scalars_alone():
    factor, residual, diagonal = pivot_columns(60, 8)
    clean, noisy = embed_rows(factor, residual, diagonal), embed_rows(factor, residual, 2 * diagonal)
    torch.testing.assert_close(noisy.row_scalars[..., 3], torch.full_like(diagonal, 0.5))
    assert torch.equal(clean.similarity.whitened, noisy.similarity.whitened)


def test_whitened_channels_are_orthonormal():
    factor, residual, diagonal = pivot_columns(80, 10)
    tokens = embed_rows(factor, residual, diagonal)
    for channels in (tokens.similarity, tokens.spectral):
        kept = channels.whitened[:, :, channels.scale[0] > 0]
        gram = kept.mT @ kept / 80
        torch.testing.assert_close(gram, torch.eye(gram.shape[-1], dtype=gram.dtype)[None], atol=1e-5, rtol=0)
