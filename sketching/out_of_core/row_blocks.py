"""Matrices that are not in memory: what their operators share, and one pass for all rows that a sketch will read."""

import contextlib
from collections.abc import Callable

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.randomness import draw_normal
from rangeformer.shapes import Int, Tensor

MOST_SAMPLED_ENTRIES = 1 << 24
"""Entries of rows held in memory unless the caller asks for more: 128 MiB in float64, a few times that at work."""


class OutOfCoreOperator(MatrixOperator):
    """A matrix read block by block."""

    has_entries = True

    @property
    def requires_grad(self) -> bool:
        """Never: reads leave torch."""
        return False

    def prepare(self, draw: Callable[[MatrixOperator, torch.Generator], Tensor], generator: torch.Generator) -> None:
        """Get ready for the reads of `draw(self, generator)`, which is called next. Nothing by default.

        Args:
            draw: Draws a sketch of an operator.
            generator: Source; its state is not changed.
        """

    def release(self) -> None:
        """Let go of what `prepare` holds."""


class _Enough(Exception):
    """Ends a dry run."""


class _Rehearsal(MatrixOperator):
    """A stand-in of A's shape that answers with random rows and notes which were asked for."""

    has_entries = True

    def __init__(self, shape: torch.Size, dtype: torch.dtype):
        super().__init__(shape, dtype, torch.device("cpu"))
        self.asked: list[Int[Tensor, " c"]] = []

    def _matmul(self, vectors: Tensor) -> Tensor:
        raise _Enough

    def _rows(self, index: Tensor) -> Tensor:
        self.asked.append(index)
        if len(self.asked) > 1:  # the first rows decide how many more are read; nobody asks a third time
            raise _Enough
        generator = torch.Generator().manual_seed(0)
        return draw_normal((len(index), self.num_columns), generator, dtype=self.dtype, device=self.device)

    def _entries(self, rows: Tensor, columns: Tensor) -> Tensor:
        raise _Enough


def planned_rows(
    shape: torch.Size,
    dtype: torch.dtype,
    draw: Callable[[MatrixOperator, torch.Generator], Tensor],
    generator: torch.Generator,
) -> Int[Tensor, " c"]:
    """The rows that a sketch will most likely ask for, so that they can be read in one look instead of two.

    A sketch looks at a few rows before it decides which others to read, but on most matrices decides the same. The
    distribution is run on a stand-in with a copy of the generator; should A turn out otherwise, what is missing is read
    then.

    Args:
        shape: Of A.
        dtype: Of A.
        draw: Draws a sketch of an operator.
        generator: Source; its state is not changed.

    Returns:
        Distinct rows in ascending order, none if the sketch reads nothing.
    """
    stand_in = _Rehearsal(shape, dtype)
    copy = torch.Generator(generator.device)
    copy.set_state(generator.get_state())
    with contextlib.suppress(_Enough):
        draw(stand_in, copy)
    if not stand_in.asked:
        return torch.empty(0, dtype=torch.int64)
    return torch.cat(stand_in.asked).unique()
