"""The RangeFormer: tokens of a matrix's rows -> looped linear attention -> neighbour and range features.

Read top to bottom: configuration, the classical coordinates that the untrained model is, the looped block, the model.

The model proposes, classical linear algebra disposes. From c pivot columns it says, for every row, *where its strongest
residual correlations lie* (close rows of `neighbors`) and *what A's leading range looks like* (columns of `range`).
All that is learned sits on top of a classical algorithm and starts at zero:

    neighbors = [ S | w Q | t / 2 ] x exp(gains) + rms x correction       zero gains, zero correction: untrained
    S: leading similarity channels, weight sqrt(scale), rescaled to mean square row norm 1      (landmark scaling)
    Q: leading spectral channels, weight sqrt(scale), every row divided by its norm;  w = explained share / 2
    t: sqrt(residual share) of the row, so that rows with nothing left stay out of the others' way

    range = [ Z sigma x exp(gain) | sqrt(d) x (cosine features of S x exp(gain) + correction) ],
    whose rows have, untrained and in expectation, the squared norms of A - noise: F F^T on the left, and on the right
    random Fourier features (Rahimi & Recht, NeurIPS 2007) of the recovered coordinates carry what F leaves.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rangeformer.models.block import Block, uniform_weights
from rangeformer.models.embedding import NUM_CONTEXT, NUM_ROW_SCALARS, NUM_STATISTICS, Channels, RowTokens, embed_rows
from rangeformer.shapes import Float, Tensor

_NORM_FLOOR = 1e-6  # squared row norms below this share of their mean are not blown up to one
_MAX_LOG_GAIN = 3.0


@dataclass(frozen=True)
class RangeFormerConfig:
    """Sizes of a RangeFormer; none is tied to the matrix or to the number of columns read."""

    channels: int = 48
    """D, width of a token in the loop."""
    num_heads: int = 4
    """Heads of the linear attention."""
    num_loops: int = 3
    """T, default number of passes through the one shared block."""
    attention: str = "galerkin"
    """One of `rangeformer.models.attention.ATTENTIONS`."""
    num_similarity: int = 32
    """Similarity channels that become neighbour coordinates (fewer if fewer columns are read)."""
    num_spectral: int = 16
    """Spectral channels that become neighbour coordinates (likewise)."""
    num_waves: int = 32
    """Random cosine features in `range`, shared evenly by the bandwidths."""
    bandwidths: tuple[float, ...] = (0.15, 0.3, 0.6, 1.2)
    """Length-scales of the cosine features, in units of the cloud of similarity coordinates."""

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "RangeFormerConfig":
        """Build from plain JSON values, which have lists where this has tuples."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)


@dataclass(frozen=True)
class Features:
    """What the model proposes.

    Attributes:
        neighbors: E, `(b, n, p)`; near in Euclidean distance = strongly correlated given the pivot columns;
            p = min(c, num_similarity) + min(c, num_spectral) + 1.
        range: Psi, `(b, n, c + num_waves)`; N(0, Psi Psi^T) is the proposed sketch distribution, in units where the
            mean of diag(A - noise) is one.
    """

    neighbors: Float[Tensor, "b n p"]
    range: Float[Tensor, "b n m"]


class ChannelNetwork(nn.Module):
    """From a channel's statistics to its log gain (zero untrained) and its direction in token space."""

    def __init__(self, channels: int, hidden: int = 32):
        """Directions of length `channels`."""
        super().__init__()
        self.hidden = nn.Linear(NUM_STATISTICS + NUM_CONTEXT, hidden)
        self.gain = nn.Linear(hidden, 1)
        self.direction = nn.Linear(hidden, channels)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)

    def forward(self, statistics: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(b, j, s)` and `(b, g)` to log gains `(b, j)` and directions `(b, j, D)`."""
        hidden = torch.nn.functional.silu(self.hidden(_with_context(statistics, context)))
        return _bounded(self.gain(hidden).squeeze(-1)), self.direction(hidden)


class RangeFormer(nn.Module):
    """The learned proposal; see the module docstring for what it computes.

    Args:
        config: Sizes; the default is that of the shipped weights.
        generator: Source of the initial weights; the model's output does not depend on them until it is trained.

    Example:
        >>> import torch
        >>> from rangeformer.models.features import RangeFormer
        >>> features = RangeFormer.untrained()(torch.eye(5, 2)[None], torch.ones(1, 5), torch.ones(1, 5))
        >>> features.neighbors.shape
        torch.Size([1, 5, 5])
    """

    def __init__(self, config: RangeFormerConfig | None = None, *, generator: torch.Generator | None = None):
        """Build the modules; everything that would leave the classical algorithm starts at zero."""
        super().__init__()
        config = RangeFormerConfig() if config is None else config
        if config.num_waves % len(config.bandwidths):
            raise ValueError(f"`num_waves` ({config.num_waves}) must be a multiple of the number of `bandwidths`.")
        self.config = config
        width, num_slots = config.channels, config.num_similarity + config.num_spectral + 1
        self.similarity_channels = ChannelNetwork(width)
        self.spectral_channels = ChannelNetwork(width)
        self.row_scalars = nn.Linear(NUM_ROW_SCALARS, width)
        self.block = Block(width, config.num_heads, config.attention)
        # one number per matrix each: weight of Q, weight of t, row-norm exponents of S and Q, gain of each bandwidth
        num_knobs = 4 + len(config.bandwidths)
        self.knobs = nn.Sequential(nn.Linear(NUM_CONTEXT, 32), nn.SiLU(), nn.Linear(32, num_knobs))
        self.slot_gains = nn.Parameter(torch.zeros(num_slots))
        self.neighbor_correction = nn.Linear(width, num_slots)
        self.range_gain = nn.Sequential(nn.Linear(NUM_STATISTICS + NUM_CONTEXT, 16), nn.SiLU(), nn.Linear(16, 1))
        self.range_correction = nn.Linear(width, config.num_waves)
        self._initialise(torch.Generator().manual_seed(0) if generator is None else generator)

    @classmethod
    def untrained(cls, config: RangeFormerConfig | None = None) -> "RangeFormer":
        """The model at the start of training: exactly the classical algorithm of the module docstring."""
        # Initialising the layers draws from torch's global generator, which is not ours to move.
        with torch.random.fork_rng(devices=[]):
            return cls(config).requires_grad_(False).eval()

    def forward(
        self,
        factor: Tensor,  # (b, n, c)
        residual_diagonal: Tensor,  # (b, n)
        diagonal: Tensor,  # (b, n)
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Features:
        """Propose neighbour and range features.

        Args:
            factor: F, `(b, n, c)`, A - noise ~ F F^T.
            residual_diagonal: `(b, n)` diagonal of A - noise - F F^T.
            diagonal: `(b, n)` diagonal of A (or of A - noise, where that is what is known).
            num_loops: T, passes through the block. Default: the configuration's.
            generator: Source of the cosine features' frequencies. Default: a fixed seed, so the map is deterministic.

        Returns:
            Features in the dtype and on the device of `factor`.

        Raises:
            ValueError: If the shapes do not match, or `num_loops` is negative.
        """
        if factor.dim() != 3 or residual_diagonal.shape != factor.shape[:2] or diagonal.shape != factor.shape[:2]:
            raise ValueError(
                "`factor` must have shape (b, n, c), `residual_diagonal` and `diagonal` (b, n). "
                f"Got {tuple(factor.shape)}, {tuple(residual_diagonal.shape)} and {tuple(diagonal.shape)}."
            )
        tokens = embed_rows(factor, residual_diagonal, diagonal)
        tokens = _cast(tokens, self.slot_gains.dtype)
        neighbors, range_features = self._propose(tokens, num_loops, generator)
        return Features(neighbors.to(factor.dtype), range_features.to(factor.dtype))

    def _propose(
        self, tokens: RowTokens, num_loops: int | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        similarity = _leading(tokens.similarity, self.config.num_similarity)
        spectral = _leading(tokens.spectral, self.config.num_spectral)
        similarity_gain, similarity_direction = self.similarity_channels(similarity.statistics, tokens.context)
        spectral_gain, spectral_direction = self.spectral_channels(spectral.statistics, tokens.context)
        knobs = _bounded(self.knobs(tokens.context)).unsqueeze(-2)  # (b, 1, 4 + bandwidths)

        classical_similarity = _coordinates(similarity, similarity_gain)  # (b, n, <= 32)
        classical_spectral = _coordinates(spectral, spectral_gain)  # (b, n, <= 16)
        state = self._loop(
            classical_similarity @ similarity_direction
            + classical_spectral @ spectral_direction
            + self.row_scalars(tokens.row_scalars),
            self.config.num_loops if num_loops is None else num_loops,
        )

        weight = tokens.explained[:, None, None] / 2
        parts = [
            _divide_by_row_norm(classical_similarity, knobs[..., 0:1]),
            weight * knobs[..., 1:2].exp() * _divide_by_row_norm(classical_spectral, 1 + knobs[..., 2:3]),
            0.5 * knobs[..., 3:4].exp() * tokens.residual_share.clamp_min(0).sqrt().unsqueeze(-1),
        ]
        used = self._slots(similarity.scale.shape[-1], spectral.scale.shape[-1])
        correction = self.neighbor_correction(state)[..., used]
        neighbors = torch.cat(parts, dim=-1) * _bounded(self.slot_gains[used]).exp() + correction

        coordinates = _coordinates(similarity, torch.zeros_like(similarity_gain))
        waves = self._waves(coordinates, knobs[..., 4:], generator) + self.range_correction(state)
        residual = (tokens.relative_diagonal * tokens.residual_share).clamp_min(0).sqrt().unsqueeze(-1)
        range_gain = _bounded(self.range_gain(_with_context(tokens.spectral.statistics, tokens.context)).squeeze(-1))
        energy = tokens.spectral.scale.square()
        explained = (tokens.explained.unsqueeze(-1) * energy / energy.sum(-1, keepdim=True).clamp_min(1)).sqrt()
        lifted = tokens.spectral.whitened * (explained * range_gain.exp()).unsqueeze(-2)
        return neighbors, torch.cat([lifted, residual * waves], dim=-1)

    def _loop(self, tokens: Float[Tensor, "b n d"], num_loops: int) -> Float[Tensor, "b n d"]:
        """The one shared block, `num_loops` times, with the tokens re-injected each time."""
        if num_loops < 0:
            raise ValueError(f"`num_loops` must not be negative. Got {num_loops}.")
        state = torch.zeros_like(tokens)
        for _ in range(num_loops):
            state = self.block(state, tokens)
        return state

    def _slots(self, num_similarity: int, num_spectral: int) -> Tensor:
        """Which of the neighbour coordinates exist when fewer columns than coordinates were read."""
        first, second = self.config.num_similarity, self.config.num_spectral
        indices = [*range(num_similarity), *range(first, first + num_spectral), first + second]
        return torch.tensor(indices, device=self.slot_gains.device)

    def _waves(self, coordinates: Tensor, gains: Tensor, generator: torch.Generator | None) -> Tensor:
        """Random cosine features of the coordinates at several length-scales, of mean square 1 / num_waves."""
        config = self.config
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        frequencies = torch.randn(config.num_similarity, config.num_waves, generator=generator, device=generator.device)
        phases = 2 * torch.pi * torch.rand(config.num_waves, generator=generator, device=generator.device)
        frequencies, phases = frequencies.to(coordinates), phases.to(coordinates)
        repeats = config.num_waves // len(config.bandwidths)
        widths = torch.tensor(config.bandwidths, dtype=coordinates.dtype, device=coordinates.device)
        angles = coordinates @ (frequencies / widths.repeat_interleave(repeats))[: coordinates.shape[-1]] + phases
        amplitude = (2 / config.num_waves) ** 0.5 * gains.exp().repeat_interleave(repeats, dim=-1)
        return amplitude * angles.cos()

    def _initialise(self, generator: torch.Generator) -> None:
        """Weights from the generator; zero wherever the untrained model must equal the classical algorithm."""
        uniform_weights(self, generator)
        with torch.no_grad():
            gains = [self.similarity_channels.gain, self.spectral_channels.gain, self.range_gain[2]]
            for layer in [*gains, self.knobs[2], self.neighbor_correction, self.range_correction]:
                layer.weight.zero_()


def _cast(tokens: RowTokens, dtype: torch.dtype) -> RowTokens:
    """The one place where tokens take the weights' precision: float64 is for the Gram matrices, not for proposals."""

    def channels(c: Channels) -> Channels:
        return Channels(c.whitened.to(dtype), c.scale.to(dtype), c.statistics.to(dtype))

    rest = (tokens.row_scalars, tokens.context, tokens.residual_share, tokens.explained, tokens.relative_diagonal)
    return RowTokens(channels(tokens.similarity), channels(tokens.spectral), *(x.to(dtype) for x in rest))


def _with_context(statistics: Float[Tensor, "b j s"], context: Float[Tensor, "b g"]) -> Float[Tensor, "b j t"]:
    """Every channel's statistics beside those of its matrix."""
    return torch.cat([statistics, context.unsqueeze(-2).expand(*statistics.shape[:-1], -1)], dim=-1)


def _leading(channels: Channels, count: int) -> Channels:
    """The first `count` channels, or all if there are fewer."""
    return Channels(channels.whitened[..., :count], channels.scale[..., :count], channels.statistics[..., :count, :])


def _coordinates(channels: Channels, log_gain: Float[Tensor, "b j"]) -> Float[Tensor, "b n j"]:
    """Channels weighted by sqrt(scale) x learned gain, rescaled to mean square row norm one."""
    weight = channels.scale.sqrt() * log_gain.exp()
    weight = weight / weight.square().sum(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny).sqrt()
    return channels.whitened * weight.unsqueeze(-2)


def _divide_by_row_norm(coordinates: Float[Tensor, "b n j"], exponent: Float[Tensor, "b 1 1"]) -> Tensor:
    """x_i / |x_i|^exponent: 0 leaves rows alone, 1 puts them on the sphere. The mean square row norm must be one."""
    return coordinates * (coordinates.square().sum(-1, keepdim=True) + _NORM_FLOOR).pow(-exponent / 2)


def _bounded(log_gain: Tensor) -> Tensor:
    """Smoothly limit a log gain, so that no odd matrix switches a classical coordinate off or blows it up."""
    return _MAX_LOG_GAIN * torch.tanh(log_gain / _MAX_LOG_GAIN)
