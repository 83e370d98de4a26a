"""The block that every model of the package loops.

Linear attention over rows and an MLP, weights shared by all loops.
"""

import torch
from torch import nn

from rangeformer.models.attention import ATTENTIONS
from rangeformer.shapes import Float, Tensor


class Block(nn.Module):
    """Linear attention and an MLP, normalised so that any number of loops stays bounded.

    Args:
        width: D, channels of a token.
        num_heads: Heads of the attention; must divide `width`.
        attention: A key of `rangeformer.models.attention.ATTENTIONS`.
    """

    def __init__(self, width: int, num_heads: int, attention: str):
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"`attention` must be one of {sorted(ATTENTIONS)}. Got {attention!r}.")
        if width % num_heads:
            raise ValueError(f"`channels` ({width}) must be a multiple of `num_heads` ({num_heads}).")
        self.num_heads, self.attention = num_heads, ATTENTIONS[attention]
        self.before_attention = nn.RMSNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.after_attention = nn.Linear(width, width)
        self.before_mlp = nn.RMSNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.inject = nn.Linear(width, width, bias=False)
        self.out = nn.RMSNorm(width)

    def forward(self, state: Float[Tensor, "b n d"], tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """One loop: re-inject the tokens, mix rows, mix channels."""
        state = state + self.inject(tokens)
        heads = self.queries_keys_values(self.before_attention(state))
        heads = heads.unflatten(-1, (3, self.num_heads, -1)).movedim(-3, 0).transpose(-3, -2)  # (3, b, h, n, D/h)
        mixed = self.attention(heads[0], heads[1], heads[2]).transpose(-3, -2).flatten(-2)  # (b, n, D)
        state = state + self.after_attention(mixed)
        return self.out(state + self.mlp(self.before_mlp(state)))


def uniform_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Give every linear layer weights from the generator, uniform in +-1 / sqrt(inputs), and no bias."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
