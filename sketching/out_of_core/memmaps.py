"""NumPy memory maps: multiplied a few dozen MiB at a time, so that a matrix may be larger than memory."""

import mmap

import numpy as np
import torch

from rangeformer.shapes import Tensor
from sketching.out_of_core.row_blocks import OutOfCoreOperator

_BLOCK_BYTES = 1 << 26


class MemmapOperator(OutOfCoreOperator):
    """A memory-mapped matrix, in the order of its file.

    The pages of a block are handed back to the system once it has been multiplied (they stay in its cache as long as
    nothing else wants the memory), so this process never holds more of the file than a block.

    Args:
        array: `(m, n)` float32 or float64, read-only or not.

    Raises:
        TypeError: If the dtype is another one.
        ValueError: If it is no matrix, or empty.
    """

    def __init__(self, array: np.memmap):
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(
                f"`A` must be float32 or float64. Got a memory map of {array.dtype}; a dask array converts blockwise."
            )
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"`A` must be one matrix (m, n), not empty. Got shape {array.shape}.")
        dtype = torch.float32 if array.dtype == np.float32 else torch.float64
        super().__init__(torch.Size(array.shape), dtype, torch.device("cpu"))
        # the file of a Fortran-ordered matrix holds its transpose by rows
        self._flipped = array.flags.f_contiguous and not array.flags.c_contiguous
        # private pages hold changes that the file does not have, and would lose them
        self._mapping = _mapping(array) if array.mode != "c" else None
        matrix = np.asarray(array)
        self._array = matrix.T if self._flipped else matrix

    def _matmul(self, vectors: Tensor) -> Tensor:
        return self._from_left(vectors) if self._flipped else self._from_right(vectors)

    def _rmatmul(self, vectors: Tensor) -> Tensor:
        return self._from_right(vectors) if self._flipped else self._from_left(vectors)

    def _rows(self, index: Tensor) -> Tensor:
        return self._strided(index).mT if self._flipped else self._contiguous(index)

    def _columns(self, index: Tensor) -> Tensor:
        return self._contiguous(index).mT if self._flipped else self._strided(index)

    def _entries(self, rows: Tensor, columns: Tensor) -> Tensor:
        if self._flipped:
            rows, columns = columns, rows
        return torch.from_numpy(self._array[rows.numpy(), columns.numpy()])

    def _from_right(self, vectors: Tensor) -> Tensor:
        """The array in the file's order times vectors."""
        right = vectors.numpy()
        product = np.empty((self._array.shape[0], right.shape[1]), self._array.dtype)
        for part in self._blocks():
            np.matmul(self._array[part], right, out=product[part])
            self._let_go()
        return torch.from_numpy(product)

    def _from_left(self, vectors: Tensor) -> Tensor:
        """Its transpose times vectors."""
        left = vectors.numpy()
        product = np.zeros((self._array.shape[1], left.shape[1]), self._array.dtype)
        for part in self._blocks():
            product += self._array[part].T @ left[part]
            self._let_go()
        return torch.from_numpy(product)

    def _contiguous(self, index: Tensor) -> Tensor:
        """Lines that stand together in the file."""
        lines = torch.from_numpy(self._array[index.numpy()])
        self._let_go()
        return lines

    def _strided(self, index: Tensor) -> Tensor:
        """Lines of which every block of the file has a part."""
        lines = np.empty((self._array.shape[0], len(index)), self._array.dtype)
        for part in self._blocks():
            lines[part] = self._array[part][:, index.numpy()]
            self._let_go()
        return torch.from_numpy(lines)

    def _blocks(self) -> list[slice]:
        count, width = self._array.shape
        step = max(1, _BLOCK_BYTES // (width * self._array.itemsize))
        return [slice(start, min(start + step, count)) for start in range(0, count, step)]

    def _let_go(self) -> None:
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(array: np.ndarray) -> mmap.mmap | None:
    """The mapping below a memory map and its views; None where the system has no way to hand pages back."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) and hasattr(base, "madvise") else None
