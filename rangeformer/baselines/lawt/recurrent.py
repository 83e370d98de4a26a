"""Recurrent rivals of the transformer: LSTM or GRU encoder and decoder, with attention to all of the encoder's states.

The paper names LSTMs and GRUs without details. Attention by scaled dot products (Luong, Pham and Manning 2015,
arXiv:1508.04025) is the plain choice: one state would have to hold every entry of the matrix.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rangeformer.baselines.lawt.config import LawtConfig
from rangeformer.baselines.lawt.layers import layer_norm
from rangeformer.baselines.lawt.seeded import seeded_layers
from rangeformer.baselines.lawt.symbols import PADDING
from rangeformer.shapes import Bool, Float, Int, Tensor

_CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


@dataclass
class RecurrentCache:
    """What the decoder remembers.

    Attributes:
        states: Of the encoder, `(b, s, width)`.
        visible: Which of them count.
        hidden: The decoder's own state: `(layers, b, width)`, two of them for an LSTM.
    """

    states: Float[Tensor, "b s width"]
    visible: Bool[Tensor, "b s"]
    hidden: tuple[Tensor, ...]

    def select(self, rows: Int[Tensor, " b"]) -> None:
        """Keep these rows of the batch, in this order; a row may be kept several times."""
        self.states, self.visible = self.states[rows], self.visible[rows]
        self.hidden = tuple(state[:, rows] for state in self.hidden)


class LawtRecurrent(nn.Module):
    """An LSTM or GRU in place of the transformer; the same tokens, calls and output layer.

    Args:
        config: Sizes and choices; `kind` "lstm" or "gru". Loops, heads and positions do not apply.
        generator: Source of the initial weights, on the CPU. Default: seed 0.
    """

    def __init__(self, config: LawtConfig, *, generator: torch.Generator | None = None):
        """Build the modules with torch's own initialisation, from the generator."""
        super().__init__()
        if config.kind not in _CELLS:
            raise ValueError(f"`config` must be of kind {list(_CELLS)}. Got {config.kind!r}; use LawtTransformer.")
        self.config = config
        size, width = config.vocabulary.size, config.encoder_width
        cell = _CELLS[config.kind]
        with seeded_layers(generator):
            self.encoder_tokens = nn.Embedding(size, width)
            self.decoder_tokens = nn.Embedding(size, width)
            for table in (self.encoder_tokens, self.decoder_tokens):
                nn.init.normal_(table.weight, 0, width**-0.5)
            self.encoder_norm, self.decoder_norm = layer_norm(width), layer_norm(width)
            self.encoder = cell(width, width, config.encoder_layers, batch_first=True)
            self.decoder = cell(width, width, config.decoder_layers, batch_first=True)
            self.query = nn.Linear(width, width)
            self.mix = nn.Linear(2 * width, width)
            self.after = layer_norm(width)
            self.bias = nn.Parameter(torch.zeros(size))

    def forward(
        self, source: Int[Tensor, "b s"], written: Int[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b t vocabulary"], Float[Tensor, ""]]:
        """Logits of the token after each one of `written` (teacher forcing), and one, the number of passes."""
        return self._decode(written, self.start(source)), self.bias.new_ones(())

    def start(self, source: Int[Tensor, "b s"]) -> RecurrentCache:
        """Read inputs; nothing is written yet."""
        visible = source != PADDING
        embedded = self.encoder_norm(self.encoder_tokens(source))
        packed = pack_padded_sequence(embedded, visible.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        states, hidden = self.encoder(packed)
        states, _ = pad_packed_sequence(states, batch_first=True, total_length=source.shape[1])
        last = hidden if isinstance(hidden, tuple) else (hidden,)
        # depths may differ: every layer of the decoder starts from the encoder's last one
        spread = tuple(state[-1:].repeat(self.config.decoder_layers, 1, 1) for state in last)
        return RecurrentCache(states, visible, spread)

    def step(self, cache: RecurrentCache, tokens: Int[Tensor, " b"]) -> Float[Tensor, "b vocabulary"]:
        """Write one more token of each answer; logits of the next. Updates the cache."""
        return self._decode(tokens.unsqueeze(1), cache).squeeze(1)

    def _decode(self, tokens: Tensor, cache: RecurrentCache) -> Tensor:
        embedded = self.decoder_norm(self.decoder_tokens(tokens))
        state = cache.hidden if self.config.kind == "lstm" else cache.hidden[0]
        outputs, state = self.decoder(embedded, state)
        cache.hidden = state if isinstance(state, tuple) else (state,)
        mask = cache.visible[:, None, :]
        context = F.scaled_dot_product_attention(self.query(outputs), cache.states, cache.states, attn_mask=mask)
        mixed = self.after(outputs + self.mix(torch.cat([outputs, context], -1)).relu())
        return F.linear(mixed, self.decoder_tokens.weight, self.bias)
