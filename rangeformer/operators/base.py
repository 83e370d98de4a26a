"""How a matrix is read: the interface, and the counts of what was read."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from rangeformer.shapes import Float, Int, Tensor


@dataclass
class Reads:
    """What has been read of one matrix (per batch element), in the three units of the field.

    Attributes:
        passes: Times all of A was touched: one product with a block of vectors is one pass.
        matvecs: Vectors multiplied by A; a product with k columns counts k.
        entries: Single entries read outside products (columns, diagonal, blocks).
    """

    passes: int = 0
    matvecs: int = 0
    entries: int = 0

    def since(self, earlier: "Reads") -> "Reads":
        """The reads made after the snapshot `earlier`."""
        return Reads(
            self.passes - earlier.passes,
            self.matvecs - earlier.matvecs,
            self.entries - earlier.entries,
        )

    def snapshot(self) -> "Reads":
        """A copy that later reads do not change."""
        return Reads(self.passes, self.matvecs, self.entries)


class MatrixOperator(ABC):
    """A batch of matrices A that can be multiplied and, if it says so, read entry by entry.

    Subclasses implement the underscored methods; the public ones count. Reads made with autograd
    enabled carry the graph back to whatever A is built from.

    Attributes:
        shape: `(*batch, m, n)`.
        dtype: Floating-point type of the entries.
        device: Where products are computed.
        has_entries: Whether columns, diagonal and entries can be read for the price of what is read.
        reads: The cost counts; shared by nothing else.
    """

    has_entries: bool = False

    def __init__(self, shape: torch.Size, dtype: torch.dtype, device: torch.device):
        self.shape = torch.Size(shape)
        self.dtype = dtype
        self.device = torch.device(device)
        self.reads = Reads()
        self._sizes: Tensor | None = None

    @property
    def batch_shape(self) -> torch.Size:
        """The leading dimensions, empty for one matrix."""
        return self.shape[:-2]

    @property
    def num_rows(self) -> int:
        """m, the number of rows."""
        return self.shape[-2]

    @property
    def num_columns(self) -> int:
        """n, the number of columns."""
        return self.shape[-1]

    @property
    def sizes(self) -> Float[Tensor, "*batch n"] | None:
        """Square roots d of the diagonal's magnitude, float64, or None without entries; n entries, read once.

        |a_ij| <= d_i d_j where A is positive semi-definite: what rounding in a product can do follows from them.
        """
        if self._sizes is None and self.has_entries and self.num_rows == self.num_columns:
            with torch.no_grad():
                self._sizes = self.diagonal().detach().to(torch.float64).abs().sqrt()
        return self._sizes

    @property
    def requires_grad(self) -> bool:
        """Whether gradients can flow from reads of A; True when it cannot be known."""
        return True

    @property
    def noise(self) -> Float[Tensor, "*batch n"] | None:
        """A known part `N` of the diagonal such that A - diag(N) is still PSD, else None."""
        return None

    def matmul(self, vectors: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch m k"]:
        """A @ vectors: one pass, k matvecs."""
        self.reads.passes += 1
        self.reads.matvecs += vectors.shape[-1]
        return self._matmul(vectors)

    def matmul_precise(self, vectors: Float[Tensor, "*batch n k"]) -> Float[Tensor, "*batch m k"]:
        """A @ vectors in float64 where A's storage allows it, for residuals of float32 solves.

        The default multiplies in A's own precision and converts the result.
        """
        return self.matmul(vectors.to(self.dtype)).to(torch.float64)

    def rmatmul(self, vectors: Float[Tensor, "*batch m k"]) -> Float[Tensor, "*batch n k"]:
        """A.mT @ vectors: one pass, k matvecs.

        Raises:
            NotImplementedError: If A cannot be multiplied from the left.
        """
        self.reads.passes += 1
        self.reads.matvecs += vectors.shape[-1]
        return self._rmatmul(vectors)

    def columns(self, index: Int[Tensor, "*batch c"]) -> Float[Tensor, "*batch m c"]:
        """The columns A[..., :, index], each batch element with its own index."""
        self._require_entries("columns")
        self.reads.entries += self.num_rows * index.shape[-1]
        return self._columns(index)

    def rows(self, index: Int[Tensor, "*batch c"]) -> Float[Tensor, "*batch c n"]:
        """The rows A[..., index, :], each batch element with its own index."""
        self._require_entries("rows")
        self.reads.entries += self.num_columns * index.shape[-1]
        return self._rows(index)

    def diagonal(self) -> Float[Tensor, "*batch n"]:
        """The diagonal of A."""
        self._require_entries("the diagonal")
        self.reads.entries += self.num_rows
        return self._diagonal()

    def entries(self, rows: Int[Tensor, "*batch p"], columns: Int[Tensor, "*batch p"]) -> Float[Tensor, "*batch p"]:
        """The p entries A[rows[i], columns[i]] of each batch element."""
        self._require_entries("entries")
        self.reads.entries += rows.shape[-1]
        return self._entries(rows, columns)

    def blocks(
        self, rows: Int[Tensor, "*batch q i"], columns: Int[Tensor, "*batch q j"]
    ) -> Float[Tensor, "*batch q i j"]:
        """The q small blocks A[rows[b], columns[b]] of each batch element."""
        shape = (*rows.shape, columns.shape[-1])
        flat_rows = rows.unsqueeze(-1).expand(shape).flatten(-3)
        flat_columns = columns.unsqueeze(-2).expand(shape).flatten(-3)
        return self.entries(flat_rows, flat_columns).unflatten(-1, shape[-3:])

    def to_dense(self, dtype: torch.dtype | None = None) -> Float[Tensor, "*batch m n"]:
        """A as one tensor, noise included: m n entries are read. It may share A's memory, so do not overwrite it.

        Args:
            dtype: In which the noise is added. Default: A's own.

        Raises:
            NotImplementedError: If A has no entry access.
        """
        self._require_entries("all entries")
        self.reads.entries += self.num_rows * self.num_columns
        return self._to_dense(self.dtype if dtype is None else dtype)

    @abstractmethod
    def _matmul(self, vectors: Tensor) -> Tensor: ...

    def _rmatmul(self, vectors: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} cannot be multiplied from the left.")

    def _to_dense(self, dtype: torch.dtype) -> Tensor:
        every = torch.arange(self.num_columns, device=self.device)
        return self._columns(every.expand(*self.batch_shape, -1)).to(dtype)

    def _columns(self, index: Tensor) -> Tensor:
        shape = (*index.shape[:-1], self.num_rows, index.shape[-1])
        rows = torch.arange(self.num_rows, device=index.device).unsqueeze(-1)
        pairs = rows.expand(shape).flatten(-2), index.unsqueeze(-2).expand(shape).flatten(-2)
        return self._entries(*pairs).unflatten(-1, shape[-2:])

    def _rows(self, index: Tensor) -> Tensor:
        shape = (*index.shape, self.num_columns)
        columns = torch.arange(self.num_columns, device=index.device)
        pairs = index.unsqueeze(-1).expand(shape).flatten(-2), columns.expand(shape).flatten(-2)
        return self._entries(*pairs).unflatten(-1, shape[-2:])

    def _diagonal(self) -> Tensor:
        index = torch.arange(self.num_rows, device=self.device).expand(*self.batch_shape, -1)
        return self._entries(index, index)

    def _entries(self, rows: Tensor, columns: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} declares no entry access.")

    def _require_entries(self, what: str) -> None:
        if not self.has_entries:
            raise NotImplementedError(
                f"{type(self).__name__} is known through products only: {what} cannot be read. "
                "Pass a dense or sparse matrix, or a preconditioner that needs products alone "
                "('nystrom' or None)."
            )
