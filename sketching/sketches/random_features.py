"""Random features: nonlinear features of a few rows that reach directions of the row space beyond their span.

Row i of A is a draw from an unknown distribution over vectors of n numbers; the best sketch is spanned by the leading
eigenvectors of its second moment A^T A / m. From c rows R two candidates of it are at hand: the sample's own, R^T R,
right on its span and zero elsewhere, and a kernel between the *columns* of R, the tokens t_j in R^c:

    k(j, j') = |t_j| |t_j'| mean_b exp(-|t_j - t_j'|^2 / (2 b s^2)),   s^2 the median squared distance of two tokens:

entries that have moved together in the rows read will do so in the others (neighbouring pixels, words of one topic).
The kernel is never formed: random cosine features of the tokens (Rahimi & Recht, NeurIPS 2007) stand for it. This
module is a network whose corrections start at zero, so that untrained it is exactly that kernel; what it may learn are
the gains of the token's channels, the lengths b and their weights, and further features of every entry by looped linear
attention over all.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rangeformer.models.block import Block, uniform_weights
from rangeformer.models.checkpoint import register
from rangeformer.models.embedding import NUM_STATISTICS, Channels, principal_channels
from rangeformer.shapes import Float, Tensor

NUM_SIGHTS = 8  # numbers that describe what was read as a whole
_RANK_TOLERANCE = 1e-7
_RANK_TOLERANCE_SINGLE = 1e-3  # a Gram matrix keeps half the digits
_NUM_PAIRS = 2000
_MAX_LOG = 3.0


@dataclass(frozen=True)
class RandomFeaturesConfig:
    """Sizes of the random features; none is tied to the matrix or to the number of rows read."""

    channels: int = 32
    """D, width of an entry's token in the loop."""
    num_heads: int = 4
    """Heads of the linear attention."""
    num_loops: int = 2
    """T, passes through the shared block."""
    attention: str = "galerkin"
    """One of `rangeformer.models.attention.ATTENTIONS`."""
    num_tokens: int = 48
    """Leading channels of the rows read that the features see; the others only enter through the rows themselves."""
    num_waves: int = 144
    """Random cosine features, shared evenly by the bandwidths."""
    bandwidths: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Squared lengths b in units of the median squared distance."""
    num_learned: int = 16
    """Learned features, zero untrained."""
    family_shape: tuple[int, int] = (0, 0)
    """(n, k) of a family of matrices with n common columns: k leading directions of their mean; none if zero."""
    num_members: int = 0
    """Members of the family that are remembered one by one."""

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "RandomFeaturesConfig":
        """Build from plain JSON values, which have lists where this has tuples."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)


@dataclass(frozen=True)
class Lifted:
    """What the random features proposes.

    Attributes:
        features: Psi, `(n, F)` of Frobenius norm one: Psi Psi^T is the kernel's candidate of A^T A.
        log_share: Learned log factor of the share that the features get beside the rows; 0 untrained.
    """

    features: Float[Tensor, "n f"]
    log_share: Float[Tensor, ""]


class RandomFeatures(nn.Module):
    """Features of the entries of a matrix's rows from a few of them; see the module docstring.

    Args:
        config: Sizes.
        generator: Source of the initial weights, on which the output does not depend until it is trained.

    Attributes:
        family: `(n, k)` leading right singular vectors of a family that the random features was fine-tuned to, each
            times the root of its energy; empty if it was not. `forward` does not use it.
        members: `(num_members, k, k)` members in those directions, see `sketching.sketches.likeness`. Nor this.

    Example:
        >>> import torch
        >>> from sketching.sketches.random_features import RandomFeatures
        >>> tuple(RandomFeatures.untrained()(torch.eye(4, 9, dtype=torch.float64)).features.shape)
        (9, 144)
    """

    family: Tensor
    members: Tensor

    def __init__(self, config: RandomFeaturesConfig | None = None, *, generator: torch.Generator | None = None):
        """Build the modules; everything that would leave the classical kernel starts at zero."""
        super().__init__()
        config = RandomFeaturesConfig() if config is None else config
        if config.num_waves % len(config.bandwidths):
            raise ValueError(f"`num_waves` ({config.num_waves}) must be a multiple of the number of `bandwidths`.")
        self.config = config
        width, num_bands = config.channels, len(config.bandwidths)
        self.channel_gain = nn.Sequential(nn.Linear(NUM_STATISTICS + NUM_SIGHTS, 32), nn.SiLU(), nn.Linear(32, 1))
        self.channel_direction = nn.Sequential(
            nn.Linear(NUM_STATISTICS + NUM_SIGHTS, 32), nn.SiLU(), nn.Linear(32, width)
        )
        self.block = Block(width, config.num_heads, config.attention)
        # per matrix: log length and log height of each bandwidth, exponent of |t|, share of the features
        self.knobs = nn.Sequential(nn.Linear(NUM_SIGHTS, 32), nn.SiLU(), nn.Linear(32, 2 * num_bands + 2))
        self.correction = nn.Linear(width, config.num_learned)
        self.register_buffer("family", torch.zeros(config.family_shape))
        members = torch.zeros(config.num_members, config.family_shape[1], config.family_shape[1])
        # not among the weights of random features that remembers none: files written before there were any can be read
        self.register_buffer("members", members, persistent=config.num_members > 0)
        uniform_weights(self, torch.Generator().manual_seed(0) if generator is None else generator)
        with torch.no_grad():
            for parameter in self._last_parameters():
                parameter.zero_()

    @classmethod
    def untrained(cls, config: RandomFeaturesConfig | None = None) -> "RandomFeatures":
        """Random features at the start of training: exactly the kernel of the module docstring."""
        # Initialising the layers draws from torch's global generator, which is not ours to move.
        with torch.random.fork_rng(devices=[]):
            return cls(config).requires_grad_(False).eval()

    def _last_parameters(self) -> list[nn.Parameter]:
        """Those without which every correction is zero."""
        return [
            parameter
            for last in (self.channel_gain[-1], self.knobs[-1], self.correction)
            for parameter in last.parameters()
        ]

    def is_trained(self) -> bool:
        """Whether any weight has left the classical kernel."""
        return any(bool(parameter.any()) for parameter in self._last_parameters())

    def knows_family(self, num_columns: int) -> bool:
        """Whether a matrix with that many columns may be a member of the family.

        Args:
            num_columns: n.
        """
        return self.family.numel() > 0 and self.family.shape[0] == num_columns

    def forward(
        self,
        rows: Float[Tensor, "c n"],
        *,
        num_loops: int | None = None,
        num_waves: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Lifted:
        """Propose features.

        Args:
            rows: R, weighted as `SampledRows.rows`.
            num_loops: T. Default: the configuration's.
            num_waves: Cosine features, a multiple of the number of bandwidths. Default: the configuration's.
            generator: Source of the cosine features' frequencies. Default: a fixed seed.

        Returns:
            The proposal in the dtype of the rows, differentiable in the weights.
        """
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        tokens, size, sights = describe(rows, self.config.num_tokens)
        dtype = self.correction.weight.dtype
        statistics = tokens.statistics[0].to(dtype)  # (k, s)
        context = torch.cat([statistics, sights.to(dtype).expand(len(statistics), -1)], -1)
        gains = _bounded(self.channel_gain(context)).squeeze(-1).to(rows.dtype)  # (k,)
        knobs = _bounded(self.knobs(sights.to(dtype))).to(rows.dtype)
        num_bands = len(self.config.bandwidths)
        coordinates = tokens.whitened[0] * tokens.scale[0] * gains.exp()
        per_band = (self.config.num_waves if num_waves is None else num_waves) // num_bands
        waves = self._waves(coordinates, knobs[: 2 * num_bands], per_band, generator)
        learned = self._learned(tokens, context, num_loops)
        # an exponent of 1 as in the kernel, and never below 0: columns that are zero stay so
        weight = size.pow(1 + torch.tanh(knobs[-2])).unsqueeze(-1)  # (n, 1)
        features = weight * torch.cat([waves, learned], -1)
        norm = torch.linalg.matrix_norm(features).clamp_min(torch.finfo(features.dtype).tiny)
        return Lifted(features / norm, knobs[-1])

    def _waves(self, coordinates: Tensor, knobs: Tensor, per_band: int, generator: torch.Generator) -> Tensor:
        """Cosine features `(n, bandwidths x per_band)`."""
        config, device = self.config, generator.device
        n, k = coordinates.shape
        count = per_band * len(config.bandwidths)
        frequencies = torch.randn(k, count, generator=generator, dtype=torch.float64, device=device).to(coordinates)
        phases = 2 * math.pi * torch.rand(count, generator=generator, dtype=torch.float64, device=device)
        pairs = torch.randint(0, n, (2, _NUM_PAIRS), generator=generator, device=device).to(coordinates.device)
        distances = (coordinates[pairs[0]] - coordinates[pairs[1]]).square().sum(-1)
        typical = distances.median()
        typical = torch.where(typical > 0, typical, distances.mean()).clamp_min(torch.finfo(coordinates.dtype).tiny)
        num_bands = len(config.bandwidths)
        lengths = torch.tensor(config.bandwidths, dtype=coordinates.dtype, device=coordinates.device)
        lengths = lengths * knobs[:num_bands].exp() * typical
        scale = lengths.rsqrt().repeat_interleave(per_band)
        heights = knobs[num_bands:].exp().repeat_interleave(per_band)
        return torch.addmm(phases.to(coordinates), coordinates, frequencies * scale).cos() * heights

    def _learned(self, tokens: Channels, context: Tensor, num_loops: int | None) -> Tensor:
        """Learned features `(n, num_learned)`, none as long as the loop would be multiplied by zero."""
        n, dtype = tokens.whitened.shape[-2], self.correction.weight.dtype
        untouched = not (bool(self.correction.weight.any()) or bool(self.correction.bias.any()))
        if untouched and not (torch.is_grad_enabled() and self.correction.weight.requires_grad):
            return tokens.whitened.new_zeros(n, 0)
        coordinates = (tokens.whitened * tokens.scale.sqrt().unsqueeze(-2)).to(dtype)  # (1, n, k)
        entries = coordinates @ self.channel_direction(context)  # (1, n, D)
        state = entries
        for _ in range(self.config.num_loops if num_loops is None else num_loops):
            state = self.block(state, entries)
        return self.correction(state)[0].to(tokens.whitened.dtype)


def describe(rows: Float[Tensor, "c n"], num_tokens: int) -> tuple[Channels, Float[Tensor, " n"], Float[Tensor, " s"]]:
    """What the network sees of the rows read.

    Args:
        rows: R, float64.
        num_tokens: Channels kept.

    Returns:
        The leading principal channels of the columns of R (their rotation, scale and signs forgotten), the norms of the
        columns over their root mean square, and numbers that describe the whole.
    """
    c, n = rows.shape
    tolerance = _RANK_TOLERANCE if rows.dtype == torch.float64 else _RANK_TOLERANCE_SINGLE
    channels = principal_channels(rows.mT.unsqueeze(0), tolerance)
    kept = min(num_tokens, c)
    leading = Channels(channels.whitened[..., :kept], channels.scale[..., :kept], channels.statistics[:, :kept])
    size = torch.linalg.vector_norm(rows, dim=0)
    mean = size.square().mean().sqrt()
    size = size / mean if bool(mean > 0) else torch.ones_like(size)
    energy = channels.scale[0].square()
    row_energy = rows.square().sum(-1)
    tiny = torch.finfo(rows.dtype).tiny
    sights = [
        torch.tensor(math.log(c) / 4),
        torch.tensor(math.log(n) / 8),
        (energy.sum().square() / energy.square().sum().clamp_min(tiny)).clamp_min(1).log() / 3,
        energy[0] / energy.sum().clamp_min(tiny),
        size.std(correction=0).clamp_max(10) / 2,
        (size == 0).to(rows).mean(),
        (rows == 0).to(rows).mean(),
        row_energy.sum().square() / (c * row_energy.square().sum()).clamp_min(tiny),
    ]
    return leading, size, torch.stack([sight.to(rows) for sight in sights])


def _bounded(x: Tensor) -> Tensor:
    """Log factors no larger than exp(3), smoothly."""
    return _MAX_LOG * torch.tanh(x / _MAX_LOG)


# so that `rangeformer.load` knows it; cards of version 0.1 call it a lift
register(RandomFeatures, RandomFeaturesConfig, RandomFeatures.untrained, former_names=("Lift",))
