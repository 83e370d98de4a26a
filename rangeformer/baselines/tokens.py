"""From a matrix to the tokens of the paper's models: padded rows, random projections of rows, or entries."""

import torch
from torch import nn

from rangeformer.baselines.config import PaperConfig
from rangeformer.shapes import Float, Tensor

_SINE_BASE = 10_000.0  # longest wavelength / 2 pi, of sine and rope (Vaswani et al. 2017; Su et al. 2021)


class Tokens(nn.Module):
    """Embedding and position code of one configuration."""

    def __init__(self, config: PaperConfig):
        """Allocate the parameters; the model initialises them."""
        super().__init__()
        self.config = config
        if config.embedding == "rows":
            self.project = nn.Linear(config.n_max, config.channels)
        elif config.embedding == "randomised":
            self.project = nn.Linear(config.channels, config.channels)
        else:
            self.project = nn.Linear(1, config.channels)
        if config.position == "learned":
            self.rows = nn.Parameter(torch.empty(config.n_max, config.channels))
            if config.embedding == "entries":
                # the right-hand side is column number n_max, whatever n is
                self.columns = nn.Parameter(torch.empty(config.n_max + 1, config.channels))

    def forward(
        self, matrix: Float[Tensor, "b n n"], rhs: Float[Tensor, "b n"] | None, generator: torch.Generator
    ) -> Float[Tensor, "b t width"]:
        """Tokens `(b, n, width)`, or `(b, n m, width)` with m = n entries of a row, and its right-hand side last."""
        if self.config.embedding == "entries":
            return self._entries(matrix, rhs)
        n = matrix.shape[-1]
        if self.config.embedding == "rows":
            # a zero-padded row meets only the first n columns of the weight
            embedded = nn.functional.linear(matrix, self.project.weight[:, :n], self.project.bias)
        else:
            omega = torch.randn(n, self.config.channels, generator=generator, device=generator.device)
            embedded = self.project(matrix @ (omega / n**0.5).to(matrix))
        index = torch.arange(n, device=matrix.device)
        parts = [embedded + self._code(index, "rows", matrix), *self._index_channel(index, embedded)]
        if rhs is not None:
            parts.append(rhs.unsqueeze(-1))
        return torch.cat(parts, dim=-1)

    def _entries(self, matrix: Tensor, rhs: Tensor | None) -> Tensor:
        n = matrix.shape[-1]
        values = matrix if rhs is None else torch.cat([matrix, rhs.unsqueeze(-1)], dim=-1)  # (b, n, m)
        row = torch.arange(n, device=matrix.device)
        column = torch.arange(values.shape[-1], device=matrix.device)
        column = torch.where(column < n, column, self.config.n_max)
        embedded = self.project(values.unsqueeze(-1))
        embedded = embedded + self._code(row, "rows", matrix).unsqueeze(-2) + self._code(column, "columns", matrix)
        if self.config.position == "index":
            embedded = torch.cat(
                [
                    embedded,
                    *self._index_channel(row[:, None].expand(values.shape[1:]), embedded),
                    *self._index_channel(column.expand(values.shape[1:]), embedded),
                ],
                dim=-1,
            )
        return embedded.flatten(1, 2)

    def _code(self, index: Tensor, which: str, like: Tensor) -> Tensor:
        """The code to add, `(len(index), D)`; zero where the position is not added."""
        if self.config.position == "learned":
            return getattr(self, which)[index]
        if self.config.position != "sine":
            return like.new_zeros(len(index), self.config.channels)
        angles = position_angles(index, self.config.channels).to(like)
        code = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[:, : self.config.channels]
        # a row and a column of equal index must not look the same: the column's code runs through the channels
        # backwards
        return code if which == "rows" else code.flip(-1)

    def _index_channel(self, index: Tensor, like: Tensor) -> list[Tensor]:
        """The index, scaled to (0, 1], as one more channel of every token; nothing for the other codes."""
        if self.config.position != "index":
            return []
        scaled = ((index + 1) / self.config.n_max).to(like)
        return [scaled.expand(like.shape[:-1]).unsqueeze(-1)]


def position_angles(index: Tensor, channels: int) -> Float[Tensor, "n half"]:
    """Angles i / base^(2 j / channels) of the sine and rope codes, `(n, ceil(channels / 2))`, float64."""
    exponent = torch.arange(0, channels, 2, device=index.device, dtype=torch.float64) / channels
    return index.double().unsqueeze(-1) / _SINE_BASE**exponent
