"""What the low-rank calls return: the factors, and what is known of their error and cost."""

from collections.abc import Iterator
from dataclasses import dataclass

from rangeformer.shapes import Float, Tensor


@dataclass(frozen=True)
class LowRank:
    """A ~ U diag(S) Vh; unpacks to `U, S, Vh`.

    Attributes:
        U: `(m, rank)` orthonormal columns.
        S: `(rank,)` descending.
        Vh: `(rank, n)` orthonormal rows.
        relative_error: Estimate of ||A - U diag(S) Vh||_F / ||A||_F.
        num_passes: Times A was read as a whole.
        num_matvecs: Vectors multiplied by A or A.mT.
        num_entries: Entries read outside products: c rows of n read by a sketch count c n, c / m of a pass.
        converged: Whether `rtol` was met, with a margin for the estimate's own error. True if none was asked for, which
            promises nothing: `relative_error` says how good the answer is, and single values may be further off. False
            from one view that shows no more of A than zero does.
        message: What happened, in a sentence.
    """

    U: Float[Tensor, "m r"]
    S: Float[Tensor, " r"]
    Vh: Float[Tensor, "r n"]
    relative_error: float
    num_passes: int
    num_matvecs: int
    num_entries: int = 0
    converged: bool = True
    message: str = ""

    def __iter__(self) -> Iterator[Tensor]:
        """`U, S, Vh = ...`."""
        return iter((self.U, self.S, self.Vh))


@dataclass(frozen=True)
class Eigen:
    """A ~ V diag(w) V^T, A symmetric; unpacks to `eigenvalues, eigenvectors`.

    Attributes:
        eigenvalues: `(rank,)` by descending magnitude.
        eigenvectors: `(n, rank)` orthonormal columns.
        relative_error: Estimate of ||A - V diag(w) V^T||_F / ||A||_F.
        num_passes: Times A was read as a whole.
        num_matvecs: Vectors multiplied by A.
        num_entries: Entries read outside products.
    """

    eigenvalues: Float[Tensor, " r"]
    eigenvectors: Float[Tensor, "n r"]
    relative_error: float
    num_passes: int
    num_matvecs: int
    num_entries: int = 0

    def __iter__(self) -> Iterator[Tensor]:
        """`eigenvalues, eigenvectors = ...`."""
        return iter((self.eigenvalues, self.eigenvectors))


@dataclass(frozen=True)
class Range:
    """An orthonormal basis Q of the leading range, A ~ Q Q^T A.

    Attributes:
        Q: `(m, k)`.
        relative_error: Estimate of ||A - Q Q^T A||_F / ||A||_F.
        num_passes: Times A was read as a whole.
        num_matvecs: Vectors multiplied by A or A.mT.
        num_entries: Entries read outside products.
        converged: Whether `rtol` was met, with a margin for the estimate's own error. True if none was asked for, which
            promises nothing: `relative_error` says how good the basis is.
        message: What happened, in a sentence.
    """

    Q: Float[Tensor, "m k"]
    relative_error: float
    num_passes: int
    num_matvecs: int
    num_entries: int = 0
    converged: bool = True
    message: str = ""
