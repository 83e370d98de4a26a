"""Dask arrays: products block by block where the blocks are, on threads or on a cluster.

Only thin matrices come back.
"""

from collections.abc import Callable
from typing import Any

import dask.array as da
import dask.base
import numpy as np
import torch
from dask.delayed import delayed

from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Int, Tensor
from sketching.out_of_core.row_blocks import OutOfCoreOperator, planned_rows


class DaskOperator(OutOfCoreOperator):
    """A lazy dask array, never computed as a whole.

    The cost counts say what the blocks are asked for: a product is one pass, and so is a read of rows that touches
    every block, since a block is computed whole however little of it is wanted. (Where the array comes straight from a
    file, dask may read less.) All the rows that a sketch is expected to want are fetched in one look.

    Args:
        array: `(m, n)` float32 or float64, with known chunk sizes.

    Raises:
        TypeError: If the dtype is another one.
        ValueError: If it is no matrix, empty, or of unknown size.
    """

    def __init__(self, array: da.Array):
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(
                f"`A` must be float32 or float64. Got a dask array of {array.dtype}; convert it, A.astype('float32')."
            )
        if np.isnan(array.shape).any():
            raise ValueError(
                f"`A` must have known chunk sizes. Got a dask array of shape {array.shape}; call "
                "A.compute_chunk_sizes()."
            )
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"`A` must be one matrix (m, n), not empty. Got shape {array.shape}.")
        dtype = torch.float32 if array.dtype == np.float32 else torch.float64
        super().__init__(torch.Size([int(size) for size in array.shape]), dtype, torch.device("cpu"))
        self._array: Any = array
        self._held_index = torch.empty(0, dtype=torch.int64)
        self._held_rows = torch.empty(0, self.num_columns, dtype=dtype)

    def prepare(self, draw: Callable[[MatrixOperator, torch.Generator], Tensor], generator: torch.Generator) -> None:
        """See `OutOfCoreOperator.prepare`.

        All rows that the sketch will ask for are read at once: a dry run of it says which.
        """
        index = planned_rows(self.shape, self.dtype, draw, generator)
        if len(index):
            self._held_index, self._held_rows = index, self._fetch(index, axis=0)

    def release(self) -> None:
        """See `OutOfCoreOperator.release`."""
        self._held_index, self._held_rows = self._held_index[:0], self._held_rows[:0]

    def rows(self, index: Int[Tensor, " c"]) -> Tensor:
        """The rows A[index, :]; those that are held cost nothing."""
        missing = ~torch.isin(index, self._held_index)
        result = torch.empty(len(index), self.num_columns, dtype=self.dtype)
        if not bool(missing.all()):
            result[~missing] = self._held_rows[torch.searchsorted(self._held_index, index[~missing])]
        if bool(missing.any()):
            result[missing] = self._fetch(index[missing], axis=0)
        return result

    def columns(self, index: Int[Tensor, " c"]) -> Tensor:
        """The columns A[:, index]."""
        return self._fetch(index, axis=1)

    def diagonal(self) -> Tensor:
        """The diagonal of A."""
        return torch.from_numpy(np.array(da.diag(self._array).compute()))

    def _matmul(self, vectors: Tensor) -> Tensor:
        return _product(self._array, vectors)

    def _rmatmul(self, vectors: Tensor) -> Tensor:
        return _product(self._array.T, vectors)

    def _entries(self, rows: Tensor, columns: Tensor) -> Tensor:
        return torch.from_numpy(np.array(self._array.vindex[rows.numpy(), columns.numpy()].compute()))

    def _fetch(self, index: Tensor, axis: int) -> Tensor:
        """Rows (axis 0) or columns (axis 1), each block asked once; counts the blocks."""
        order = index.argsort()
        sorted_index = index[order].numpy()
        chunks = np.array(self._array.chunks[axis])
        touched = int(chunks[np.unique(np.searchsorted(chunks.cumsum(), sorted_index, side="right"))].sum())
        if touched == chunks.sum():
            self.reads.passes += 1
        else:
            self.reads.entries += touched * self._array.shape[1 - axis]
        part = self._array[sorted_index] if axis == 0 else self._array[:, sorted_index]
        lines = torch.from_numpy(np.array(part.compute()))
        result = torch.empty_like(lines)
        if axis == 0:
            result[order] = lines
        else:
            result[:, order] = lines
        return result


def _product(array: Any, vectors: Tensor) -> Tensor:
    """The product: one task a block, partial sums by a tree."""
    right = _thin(vectors.detach().numpy(), array.chunks[1])
    return torch.from_numpy(np.array((array @ right).compute()))


def _thin(vectors: np.ndarray, chunks: tuple[int, ...]) -> da.Array:
    """Vectors in memory as a dask array, chunked as their other factor; sent to a cluster once, not in the graph."""
    pieces = np.split(vectors, np.cumsum(chunks)[:-1])
    client = _client()
    if client is None:
        values: list[Any] = [delayed(piece, pure=False) for piece in pieces]
    else:
        values = client.scatter(pieces)
    parts = [
        da.from_delayed(value, shape=piece.shape, dtype=piece.dtype)
        for value, piece in zip(values, pieces, strict=True)
    ]
    return da.concatenate(parts, axis=0)


def _client() -> Any:
    """The cluster that would compute, if there is one."""
    client = getattr(dask.base.get_scheduler(), "__self__", None)
    return client if hasattr(client, "scatter") else None
