"""Post-norm transformer layers (Vaswani et al. 2017, arXiv:1706.03762).

ReLU, four hidden units a channel, no dropout.
"""

import torch
from torch import nn
from torch.nn import functional as F

from rangeformer.shapes import Bool, Float, Int, Tensor

NORM_EPS = 1e-12
KeysValues = tuple[Tensor, Tensor]


def layer_norm(width: int) -> nn.LayerNorm:
    """The normalisation after every sublayer and embedding."""
    return nn.LayerNorm(width, eps=NORM_EPS)


class Embedding(nn.Module):
    """Token code + learned position code, normalised."""

    def __init__(self, num_tokens: int, num_positions: int, width: int, *, sinusoids: bool = False):
        """Codes are drawn from N(0, 1 / width); with `sinusoids` those of positions start from waves of that power."""
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, width)
        self.positions = nn.Embedding(num_positions, width)
        self.norm = layer_norm(width)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, 0, width**-0.5)
        if sinusoids:
            with torch.no_grad():
                self.positions.weight.copy_(_waves(num_positions, width))

    def forward(self, tokens: Int[Tensor, "b t"], start: int = 0) -> Float[Tensor, "b t width"]:
        """Embed tokens of which the first is at position `start`."""
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        return self.norm(self.tokens(tokens) + self.positions(positions))


class Attention(nn.Module):
    """Multi-head attention whose keys and values may come from a state of another width, and be kept."""

    def __init__(self, width: int, heads: int, source_width: int | None = None):
        """Queries of `width`, keys and values from `source_width` (default: the same)."""
        super().__init__()
        source_width = width if source_width is None else source_width
        self.heads = heads
        self.queries = nn.Linear(width, width)
        self.keys = nn.Linear(source_width, width)
        self.values = nn.Linear(source_width, width)
        self.out = nn.Linear(width, width)

    def keys_values(self, source: Float[Tensor, "b s source"]) -> KeysValues:
        """What a source offers, `(b, h, s, e)` each."""
        return self._split(self.keys(source)), self._split(self.values(source))

    def forward(
        self,
        x: Float[Tensor, "b t width"],
        keys_values: KeysValues,
        mask: Bool[Tensor, "b 1 1 s"] | None = None,
        *,
        causal: bool = False,
    ) -> Float[Tensor, "b t width"]:
        """Softmax attention; `mask` is true where a key may be seen."""
        mixed = F.scaled_dot_product_attention(
            self._split(self.queries(x)), *keys_values, attn_mask=mask, is_causal=causal
        )
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Float[Tensor, "b h t e"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class EncoderLayer(nn.Module):
    """LN(x + attention), LN(x + MLP)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = Attention(width, heads)
        self.after_attention = layer_norm(width)
        self.mlp = _mlp(width)
        self.after_mlp = layer_norm(width)

    def forward(
        self, x: Float[Tensor, "b s width"], mask: Bool[Tensor, "b 1 1 s"] | None
    ) -> Float[Tensor, "b s width"]:
        """Mix the tokens, then the channels."""
        x = self.after_attention(x + self.attention(x, self.attention.keys_values(x), mask))
        return self.after_mlp(x + self.mlp(x))


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, MLP, each in LN(x + ...)."""

    def __init__(self, width: int, heads: int, source_width: int, *, query_is_input: bool):
        """With `query_is_input` the layer's input asks the encoder, not what self-attention made of it."""
        super().__init__()
        self.query_is_input = query_is_input
        self.attention = Attention(width, heads)
        self.after_attention = layer_norm(width)
        self.cross = Attention(width, heads, source_width)
        self.after_cross = layer_norm(width)
        self.mlp = _mlp(width)
        self.after_mlp = layer_norm(width)

    def forward(
        self,
        x: Float[Tensor, "b t width"],
        own: KeysValues,
        source: KeysValues,
        mask: Bool[Tensor, "b 1 1 s"] | None,
        *,
        causal: bool,
    ) -> Float[Tensor, "b t width"]:
        """One layer over tokens whose visible keys and values are `own`, and those of the encoder `source`."""
        mixed = self.after_attention(x + self.attention(x, own, causal=causal))
        asked = self.cross(x if self.query_is_input else mixed, source, mask)
        mixed = self.after_cross(mixed + asked)
        return self.after_mlp(mixed + self.mlp(mixed))


def _waves(num_positions: int, width: int) -> Float[Tensor, "p width"]:
    """Sines, then cosines, of wavelengths from 2 pi to that times the number of positions.

    Vaswani et al., section 3.5.
    """
    count = width // 2
    frequencies = num_positions ** (-torch.arange(count) / count)
    angles = torch.arange(num_positions).unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1) / count**0.5


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
