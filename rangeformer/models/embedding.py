"""The learnable projection's input: what c columns of a matrix say about each of its rows.

From the factor F (n x c), A - noise ~ F F^T, and the residual diagonal d, with k_i = d_i + |F_i|^2 the diagonal
of A - noise, come three scale-free views of the rows, none of which depends on the order, the signs or even the
rotation of F's columns, nor on the scale of A:

1. *Similarity channels.* The landmarks S are the c rows that F explains best (for pivoted Cholesky: the pivots,
   whose residual is zero). kappa_ij = F_i F_j^T / sqrt(k_i k_j), j in S, is the exact correlation of row i with
   landmark j. For a Gaussian kernel -log|kappa_ij| is half a squared distance, so after double centring
       T = C (-log(|kappa| + floor)) C'
   is linear in the unknown coordinates of the points: landmark multidimensional scaling (de Silva & Tenenbaum,
   "Sparse multidimensional scaling using landmark points", 2004), which needs the matrix alone. Other decaying
   kernels bend this map, monotonically. Its principal components, weighted by the square root of their singular
   values, are coordinates in which Euclidean distance tells how strongly two rows correlate.
2. *Spectral channels.* Whitened Nystrom coordinates Z: F = Z diag(sigma) V^T.
3. *Row scalars.* Shares of the diagonal that F leaves (d / k), and that is noise (k / diagonal).
"""

from dataclasses import dataclass

import torch

from rangeformer.shapes import Float, Int, Tensor

SIMILARITY_FLOOR = 1e-6  # correlations below this are rounding in float32; the same in both precisions
NUM_STATISTICS = 6  # numbers that describe one channel
NUM_CONTEXT = 10  # numbers that describe the whole matrix
NUM_ROW_SCALARS = 4
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Channels:
    """Principal channels of a table of row features, by descending energy.

    Attributes:
        whitened: `(b, n, c)`, each channel of mean square one (or zero, past the numerical rank).
        scale: `(b, c)` root mean square of each channel before whitening, relative to the first; 0 past the rank.
        statistics: `(b, c, NUM_STATISTICS)` scale-free descriptions of each channel.
    """

    whitened: Float[Tensor, "b n c"]
    scale: Float[Tensor, "b c"]
    statistics: Float[Tensor, "b c s"]


@dataclass(frozen=True)
class RowTokens:
    """All that the model sees of a matrix; float64.

    Attributes:
        similarity: Channels of the centred log-similarity to the landmarks.
        spectral: Channels of F itself.
        row_scalars: `(b, n, NUM_ROW_SCALARS)`.
        context: `(b, NUM_CONTEXT)` statistics of the whole matrix.
        residual_share: `(b, n)` d / (d + |F_i|^2), in [0, 1].
        explained: `(b,)` share of the diagonal that F explains.
        relative_diagonal: `(b, n)` (d + |F_i|^2) over its mean.
    """

    similarity: Channels
    spectral: Channels
    row_scalars: Float[Tensor, "b n r"]
    context: Float[Tensor, "b g"]
    residual_share: Float[Tensor, "b n"]
    explained: Float[Tensor, " b"]
    relative_diagonal: Float[Tensor, "b n"]


def embed_rows(
    factor: Float[Tensor, "b n c"],
    residual_diagonal: Float[Tensor, "b n"],
    diagonal: Float[Tensor, "b n"],
) -> RowTokens:
    """Turn the pivot columns of a matrix into tokens, one per row.

    Args:
        factor: F, `(b, n, c)`, A - noise ~ F F^T.
        residual_diagonal: d, `(b, n)`, the diagonal of A - noise - F F^T.
        diagonal: `(b, n)` diagonal of A, or of A - noise where that is all that is known.

    Returns:
        The tokens, in float64: Gram matrices of F square its condition number.
    """
    rank_tolerance = max(1e-7, 100 * torch.finfo(factor.dtype).eps)
    factor, residual, diagonal = (x.detach().to(torch.float64) for x in (factor, residual_diagonal, diagonal))
    residual = residual.clamp_min(0)
    explained = factor.square().sum(-1)  # (b, n)
    total = residual + explained  # (b, n)
    # one scale per matrix keeps every later tiny number away from the denormals, whatever the units of A
    mean_total = total.mean(-1, keepdim=True).clamp_min(_TINY)
    share = torch.where(total > 0, residual / total.clamp_min(_TINY * mean_total), torch.ones_like(total))
    log_similarity = -(landmark_similarity(factor, total, share).abs() + SIMILARITY_FLOOR).log()
    similarity = principal_channels(_double_centred(log_similarity), rank_tolerance)
    spectral = principal_channels(factor, rank_tolerance)
    relative = total / mean_total
    noise_share = (diagonal - total).clamp_min(0) / diagonal.clamp_min(_TINY * mean_total)
    row_scalars = torch.stack(
        [share, share.clamp_min(1e-4).log() / 4, relative.clamp_min(1e-6).log() / 4, noise_share], dim=-1
    )
    explained_share = 1 - residual.mean(-1) / mean_total.squeeze(-1)
    context = _context(similarity, spectral, row_scalars, log_similarity)
    return RowTokens(similarity, spectral, row_scalars, context, share, explained_share.clamp(0, 1), relative)


def landmark_similarity(
    factor: Float[Tensor, "b n c"], total: Float[Tensor, "b n"], share: Float[Tensor, "b n"]
) -> Float[Tensor, "b n l"]:
    """Correlation of every row with the landmarks, the min(c, n) rows of least residual share."""
    num_landmarks = min(factor.shape[-1], factor.shape[-2])
    landmarks: Int[Tensor, "b l"] = share.topk(num_landmarks, dim=-1, largest=False).indices
    normalised = factor * torch.where(total > 0, total, torch.ones_like(total)).rsqrt().unsqueeze(-1)
    at_landmarks = torch.take_along_dim(normalised, landmarks.unsqueeze(-1), dim=-2)
    return (normalised @ at_landmarks.mT).clamp(-1, 1)


def principal_channels(table: Float[Tensor, "b n c"], rank_tolerance: float) -> Channels:
    """Whiten a table of row features by the eigenvectors of its Gram matrix.

    Args:
        table: `(b, n, c)`.
        rank_tolerance: Channels below this, relative to the first, are rounding and come back as zeros.

    Returns:
        Channels by descending energy, each with the sign that makes its third moment positive: so the result
        does not know the order or the signs of the table's columns.
    """
    gram = table.mT @ table / table.shape[-2]
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(-1).clamp_min(0), vectors.flip(-1)
    scale = values.sqrt()  # (b, c)
    largest = scale[..., :1].clamp_min(_TINY)
    kept = scale > rank_tolerance * largest
    whitened = (table @ vectors) * torch.where(kept, scale, torch.ones_like(scale)).reciprocal().unsqueeze(-2)
    whitened = torch.where(kept.unsqueeze(-2), whitened, torch.zeros_like(whitened))
    skew = whitened.pow(3).mean(-2, keepdim=True)
    whitened = whitened * torch.where(skew < 0, -torch.ones_like(skew), torch.ones_like(skew))
    relative = torch.where(kept, scale / largest, torch.zeros_like(scale))
    return Channels(whitened, relative, _channel_statistics(whitened, relative))


def _channel_statistics(whitened: Tensor, relative: Tensor) -> Tensor:
    """`(b, c, NUM_STATISTICS)`: how strong, how far down and how heavy-tailed each channel is."""
    count = relative.shape[-1]
    index = torch.arange(1, count + 1, dtype=relative.dtype, device=relative.device).expand_as(relative)
    energy = relative.square()
    share = energy / energy.sum(-1, keepdim=True).clamp_min(_TINY)
    kurtosis = whitened.pow(4).mean(-2)
    columns = [
        relative.clamp_min(1e-7).log() / 4,
        share.clamp_min(1e-9).log() / 4,
        index.log() / 3,
        index / count,
        kurtosis.clamp(1e-2, 1e4).log() / 3,
        (relative > 0).to(relative.dtype),
    ]
    return torch.stack(columns, dim=-1)


def _context(similarity: Channels, spectral: Channels, row_scalars: Tensor, log_similarity: Tensor) -> Tensor:
    """`(b, NUM_CONTEXT)`: statistics of the whole matrix, none of which grows with n."""
    count = torch.full_like(spectral.scale[..., 0], spectral.scale.shape[-1])
    share, relative, noise = row_scalars[..., 0], row_scalars[..., 2], row_scalars[..., 3]
    columns = [
        count.log() / 4,
        _effective_rank(similarity.scale).log() / 3,
        _effective_rank(spectral.scale).log() / 3,
        share.mean(-1),
        share.std(-1, correction=0),
        relative.mean(-1),
        relative.std(-1, correction=0),
        noise.mean(-1),
        log_similarity.mean((-1, -2)) / 8,
        log_similarity.flatten(-2).std(-1, correction=0) / 4,
    ]
    return torch.stack(columns, dim=-1)


def _effective_rank(scale: Tensor) -> Tensor:
    """Participation ratio of the channel energies, between 1 and c."""
    energy = scale.square()
    return energy.sum(-1).square().clamp_min(1) / energy.square().sum(-1).clamp_min(1)


def _double_centred(table: Tensor) -> Tensor:
    """Remove every row's and every column's mean."""
    table = table - table.mean(-1, keepdim=True)
    return table - table.mean(-2, keepdim=True)
