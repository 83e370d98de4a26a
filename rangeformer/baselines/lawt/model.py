"""The transformer of "Linear algebra with transformers": reads a matrix as tokens, writes the answer as tokens.

    tokens -> embedding + learned positions -> LN -> encoder layers, looped -> state
    written so far -> embedding -> decoder layers, attending to the state -> logits by the decoder's own embedding

Encoder and decoder have embeddings of their own over one vocabulary; the decoder's is its output layer too. They may
differ in depth, width and heads.

References:
    Charton, Linear algebra with transformers, TMLR 2022, arXiv:2112.01898, section 3 and appendix.
"""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from rangeformer.baselines.lawt.config import LawtConfig
from rangeformer.baselines.lawt.layers import DecoderLayer, Embedding, EncoderLayer, KeysValues
from rangeformer.baselines.lawt.loops import Loops
from rangeformer.baselines.lawt.seeded import seeded_layers
from rangeformer.baselines.lawt.symbols import PADDING
from rangeformer.shapes import Bool, Float, Int, Tensor


@dataclass
class Cache:
    """Keys and values of the tokens decoded so far, for every layer and pass.

    Attributes:
        source: Of the encoder's state, by layer.
        mask: Which tokens of the input are visible; None if all.
        own: Of the tokens written so far, by layer within pass.
        position: How many have been written.
    """

    source: list[KeysValues]
    mask: Bool[Tensor, "b 1 1 s"] | None
    own: list[KeysValues] = field(default_factory=list)
    position: int = 0

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Keep these rows of the batch, in this order; a row may be kept several times."""
        self.source = [(keys[rows], values[rows]) for keys, values in self.source]
        self.own = [(keys[rows], values[rows]) for keys, values in self.own]
        self.mask = None if self.mask is None else self.mask[rows]

    def append(self, index: int, new: KeysValues) -> KeysValues:
        """All keys and values of a layer and pass, the new ones included."""
        if index == len(self.own):
            self.own.append(new)
        else:
            keys, values = self.own[index]
            self.own[index] = torch.cat([keys, new[0]], 2), torch.cat([values, new[1]], 2)
        return self.own[index]


class LawtTransformer(nn.Module):
    """Encoder-decoder over the tokens of `config.vocabulary`; see the module docstring.

    Args:
        config: Sizes and choices.
        generator: Source of the initial weights, on the CPU. Default: seed 0.

    Example:
        >>> import torch
        >>> from rangeformer.baselines.lawt import LawtConfig, LawtTransformer
        >>> model = LawtTransformer(LawtConfig(input_encoding="P10", output_encoding="P10", num_positions=64))
        >>> logits, _ = model(torch.zeros(2, 30, dtype=torch.long), torch.zeros(2, 12, dtype=torch.long))
        >>> logits.shape
        torch.Size([2, 12, 338])
    """

    def __init__(self, config: LawtConfig | None = None, *, generator: torch.Generator | None = None):
        """Build the modules with torch's own initialisation, from the generator."""
        super().__init__()
        config = LawtConfig() if config is None else config
        if config.kind != "transformer":
            raise ValueError(f'`config` must be of kind "transformer". Got {config.kind!r}; use LawtRecurrent.')
        self.config = config
        size, sinusoids = config.vocabulary.size, config.positions == "sinusoids"
        with seeded_layers(generator):
            self.encoder_embedding = Embedding(size, config.num_positions, config.encoder_width, sinusoids=sinusoids)
            self.encoder = nn.ModuleList(
                EncoderLayer(config.encoder_width, config.encoder_heads) for _ in range(config.encoder_layers)
            )
            self.loops = Loops(config.loop, config.encoder_loops, config.encoder_width)
            self.decoder_embedding = Embedding(size, config.num_positions, config.decoder_width, sinusoids=sinusoids)
            self.decoder = nn.ModuleList(
                DecoderLayer(
                    config.decoder_width,
                    config.decoder_heads,
                    config.encoder_width,
                    query_is_input=config.cross_query == "input",
                )
                for _ in range(config.decoder_layers)
            )
            self.bias = nn.Parameter(torch.zeros(size))

    def forward(
        self, source: Int[Tensor, "b s"], written: Int[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b t vocabulary"], Float[Tensor, ""]]:
        """Logits of the token after each one of `written` (teacher forcing).

        The encoder's mean number of passes.
        """
        cache, passes = self._encode(source)
        return self._decode(written, cache, causal=True), passes

    def start(self, source: Int[Tensor, "b s"]) -> Cache:
        """Read inputs; nothing is written yet."""
        return self._encode(source)[0]

    def step(self, cache: Cache, tokens: Int[Tensor, " b"]) -> Float[Tensor, "b vocabulary"]:
        """Write one more token of each answer; logits of the next. Updates the cache."""
        return self._decode(tokens.unsqueeze(1), cache, causal=False).squeeze(1)

    def _encode(self, source: Tensor) -> tuple[Cache, Tensor]:
        visible = source != PADDING
        mask = None if bool(visible.all()) else visible[:, None, None, :]

        def one_pass(x: Tensor) -> Tensor:
            for layer in self.encoder:
                x = layer(x, mask)
            return x

        state, passes = self.loops(self.encoder_embedding(source), one_pass, visible)
        offered = [layer.cross.keys_values(state) for layer in self._decoder_layers()]
        return Cache(offered, mask), passes

    def _decode(self, tokens: Tensor, cache: Cache, *, causal: bool) -> Tensor:
        x = self.decoder_embedding(tokens, cache.position)
        index = 0
        for _ in range(self.config.decoder_loops):
            for layer, source in zip(self._decoder_layers(), cache.source, strict=True):
                own = cache.append(index, layer.attention.keys_values(x))
                x = layer(x, own, source, cache.mask, causal=causal)
                index += 1
        cache.position += tokens.shape[1]
        return F.linear(x, self.decoder_embedding.tokens.weight, self.bias)

    def _decoder_layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.decoder if isinstance(layer, DecoderLayer)]
