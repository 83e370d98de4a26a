"""Matrices as token sequences and back: boundary, [task,] V<rows> V<columns>, the entries row by row, boundary."""

from collections.abc import Sequence

import torch

from rangeformer.baselines.lawt.encodings import ABSENT, ENCODINGS, Encoding
from rangeformer.baselines.lawt.symbols import (
    BOUNDARY,
    FIRST_DIMENSION,
    MAX_DIMENSION,
    NAMES,
    NUM_SYMBOLS,
    PADDING,
    TASK_TOKENS,
)
from rangeformer.shapes import Bool, Float, Int, Tensor


class Vocabulary:
    """The tokens of a model: common symbols, then those of the inputs' encoding, then those of the outputs' if another.

    Blocks are disjoint, also where two encodings have tokens of one name.

    Args:
        input_encoding: Name of the encoding of the inputs.
        output_encoding: Name of that of the outputs. Default: the same.

    Raises:
        ValueError: If a name is unknown.

    Example:
        >>> import torch
        >>> from rangeformer.baselines.lawt import Vocabulary
        >>> vocabulary = Vocabulary("P1000")
        >>> tokens = vocabulary.write(torch.tensor([[[3.14159, -0.05]]]), vocabulary.input)
        >>> " ".join(vocabulary.names(tokens[0]))
        '<boundary> V1 V2 + 314 E-2 - 500 E-4 <boundary>'
    """

    def __init__(self, input_encoding: str, output_encoding: str | None = None):
        output_encoding = input_encoding if output_encoding is None else output_encoding
        for name, value in (("input_encoding", input_encoding), ("output_encoding", output_encoding)):
            if value not in ENCODINGS:
                raise ValueError(f"`{name}` must be one of {list(ENCODINGS)}. Got {value!r}.")
        self.input: Encoding = ENCODINGS[input_encoding](NUM_SYMBOLS)
        self.output: Encoding = self.input
        self.size = NUM_SYMBOLS + self.input.num_tokens
        if output_encoding != input_encoding:
            self.output = ENCODINGS[output_encoding](self.size)
            self.size += self.output.num_tokens

    def write(
        self, matrices: Float[Tensor, "b m n"], encoding: Encoding, task: str | None = None
    ) -> Int[Tensor, "b length"]:
        """The sequences of a batch of matrices, padded at the end where some have zeros of fewer tokens.

        Args:
            matrices: `(b, m, n)`, m and n at most 100.
            encoding: `self.input` or `self.output`.
            task: Whose token goes before the dimensions, where tasks are trained jointly. Default: none.

        Raises:
            ValueError: If the matrices are too large, or a number cannot be written.
        """
        b, m, n = matrices.shape
        if not (1 <= m <= MAX_DIMENSION and 1 <= n <= MAX_DIMENSION):
            raise ValueError(f"`matrices` must have 1 to {MAX_DIMENSION} rows and columns. Got {m} x {n}.")
        numbers = encoding.tokens(matrices.flatten(1)).flatten(1)
        head = numbers.new_tensor([BOUNDARY, *self._head(m, n, task)]).expand(b, -1)
        tokens = torch.cat([head, numbers, numbers.new_full((b, 1), BOUNDARY)], 1)
        if encoding.width == 5:  # tokens may be absent
            order = (tokens == ABSENT).long().argsort(dim=1, stable=True)
            tokens = tokens.gather(1, order).masked_fill(tokens.gather(1, order) == ABSENT, PADDING)
            longest = int((tokens != PADDING).sum(1).max())
            tokens = tokens[:, :longest]
        return tokens

    def read(
        self, tokens: Int[Tensor, "b length"], shape: tuple[int, int], encoding: Encoding, task: str | None = None
    ) -> tuple[Float[Tensor, "b m n"], Bool[Tensor, " b"]]:
        """The matrices that sequences stand for, if they have the expected shape; strict, without exceptions.

        Args:
            tokens: `(b, length)`, beginning with the boundary; whatever follows the last number is ignored.
            shape: (m, n), which the dimension tokens must say.
            encoding: `self.input` or `self.output`.
            task: Whose token must be first. Default: none.

        Returns:
            Matrices `(b, m, n)`, float64, NaN where malformed, and whether each is well-formed.
        """
        m, n = shape
        expected = tokens.new_tensor([BOUNDARY, *self._head(m, n, task)])
        start, width = len(expected), encoding.width
        room = start + (m * n + 1) * width
        padded = torch.nn.functional.pad(tokens, (0, max(0, room - tokens.shape[1])), value=PADDING)
        well_formed = (padded[:, :start] == expected).all(1)
        position = torch.full_like(padded[:, 0], start)
        offsets = torch.arange(width, device=tokens.device)
        values = []
        for _ in range(m * n):
            value, length = encoding.numbers(padded.gather(1, position.unsqueeze(1) + offsets))
            values.append(value)
            position = position + length
            well_formed = well_formed & (length > 0)
        matrices = torch.stack(values, 1).view(-1, m, n)
        return matrices.masked_fill(~well_formed.view(-1, 1, 1), torch.nan), well_formed

    def names(self, tokens: Int[Tensor, " length"]) -> list[str]:
        """What the tokens are called."""
        known = [*NAMES, *self.input.names(), *(self.output.names() if self.output is not self.input else [])]
        return [known[token] for token in tokens.tolist()]

    def length(self, shape: tuple[int, int], encoding: Encoding, *, joint: bool = False) -> int:
        """Tokens of a matrix of that shape, at most, with both boundaries."""
        return 4 + joint + shape[0] * shape[1] * encoding.width

    def _head(self, m: int, n: int, task: str | None) -> list[int]:
        dimensions = [FIRST_DIMENSION + m - 1, FIRST_DIMENSION + n - 1]
        return dimensions if task is None else [TASK_TOKENS[task], *dimensions]


def pad(sequences: Sequence[Int[Tensor, "_ _"]]) -> Int[Tensor, "b length"]:
    """Batches of sequences as one, padded at the end to the longest."""
    longest = max(batch.shape[1] for batch in sequences)
    padded = [torch.nn.functional.pad(x, (0, longest - x.shape[1]), value=PADDING) for x in sequences]
    return torch.cat(padded)
