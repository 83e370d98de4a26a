"""Which earlier rows a row conditions on: nearest tokens propose, exact entries dispose.

Rows are put in an order; row i may condition only on rows before it. Candidates are the nearest
earlier tokens in the model's neighbour embedding; among them the k with the largest residual
correlation rho_ij^2 = R_ij^2 / (R_ii R_jj), R = A - F F^T, are kept, which reads one entry per candidate.
"""

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Float, Int, Tensor

_CHUNK = 1 << 24  # distances (or gathered numbers) held at a time


def nearest_earlier(
    tokens: Float[Tensor, "*batch n p"], order: Int[Tensor, "*batch n"], num_neighbors: int
) -> Int[Tensor, "*batch n k"]:
    """The nearest tokens among those earlier in the order, by chunked exact search.

    Args:
        tokens: `(*batch, n, p)`.
        order: `(*batch, n)` permutation: `order[j]` is the row that comes j-th.
        num_neighbors: k.

    Returns:
        `(*batch, n, k)` row indices; -1 where fewer than k rows are earlier.
    """
    n = tokens.shape[-2]
    num_neighbors = min(num_neighbors, max(n - 1, 1))
    ordered = torch.take_along_dim(tokens, order.unsqueeze(-1), dim=-2)
    squares = ordered.square().sum(-1)
    position = torch.arange(n, device=tokens.device)
    found = torch.full((*order.shape, num_neighbors), -1, device=tokens.device, dtype=torch.long)
    count = max(1, order[..., 0].numel())
    start = 0
    while start < n:
        stop = min(n, start + max(1, _CHUNK // (count * max(start + 1, n // 2))))
        k = min(num_neighbors, stop)
        distance = squares[..., None, :stop] - 2 * ordered[..., start:stop, :] @ ordered[..., :stop, :].mT
        late = position[:stop] >= position[start:stop, None]
        nearest = distance.masked_fill_(late, torch.inf).topk(k, dim=-1, largest=False)
        found[..., start:stop, :k] = nearest.indices.masked_fill(nearest.values.isinf(), -1)
        start = stop
    return _to_rows(found, order)


def _to_rows(positions: Tensor, order: Tensor) -> Tensor:
    """Translate neighbour lists from places in the order to row indices."""
    shape = positions.shape
    rows = torch.take_along_dim(order, positions.clamp_min(0).flatten(-2), -1).view(shape)
    rows = rows.masked_fill(positions < 0, -1)
    return torch.empty_like(rows).scatter_(-2, order.unsqueeze(-1).expand(shape), rows)


def strongest(
    operator: MatrixOperator,
    factor: Float[Tensor, "*batch n c"],
    residual_diagonal: Float[Tensor, "*batch n"],
    candidates: Int[Tensor, "*batch n m"],
    num_neighbors: int,
) -> Int[Tensor, "*batch n k"]:
    """Keep, of each row's candidates, those with the largest exact residual correlation.

    Args:
        operator: A, with entry access; n m of its entries are read.
        factor: F, `(*batch, n, c)`.
        residual_diagonal: `(*batch, n)` diagonal of A - F F^T, positive.
        candidates: `(*batch, n, m)` rows, -1 for none.
        num_neighbors: k <= m.

    Returns:
        `(*batch, n, k)` rows, -1 for none.
    """
    n, m = candidates.shape[-2:]
    if m <= num_neighbors:
        return candidates
    count = max(1, candidates[..., 0, 0].numel())
    rows_per_chunk = max(1, _CHUNK // max(1, count * m * factor.shape[-1]))
    kept = []
    for start in range(0, n, rows_per_chunk):
        part = candidates[..., start : start + rows_per_chunk, :]
        safe = part.clamp_min(0)
        rows = torch.arange(start, start + part.shape[-2], device=part.device)
        entries = operator.blocks(rows.expand(part.shape[:-1]).unsqueeze(-1), safe).squeeze(-2)
        neighbor_tokens = gather_rows(factor, safe)
        inner = neighbor_tokens @ factor[..., start : start + part.shape[-2], :, None]
        residual = entries - inner.squeeze(-1)
        weight = gather_rows(residual_diagonal.unsqueeze(-1), safe).squeeze(-1)
        score = (residual.square() / weight).masked_fill(part < 0, -1.0)
        best = score.topk(num_neighbors, dim=-1)
        chosen = torch.take_along_dim(part, best.indices, -1)
        kept.append(chosen.masked_fill(best.values < 0, -1))
    return torch.cat(kept, -2)


def gather_rows(table: Float[Tensor, "*batch n c"], index: Int[Tensor, "*batch q k"]) -> Float[Tensor, "*batch q k c"]:
    """table[..., index, :], each batch element with its own index."""
    if table.dim() == 2:
        return table[index]
    flat = table.flatten(0, -3)
    flat_index = index.flatten(0, -3)
    element = torch.arange(flat.shape[0], device=table.device).view(-1, 1, 1)
    return flat[element, flat_index].view(*index.shape, table.shape[-1])
