"""Sizes and choices of the sequence-to-sequence models."""

from dataclasses import dataclass
from typing import Any

from rangeformer.baselines.lawt.encodings import ENCODINGS
from rangeformer.baselines.lawt.vocabulary import Vocabulary

KINDS = ("transformer", "lstm", "gru")
LOOPS = ("plain", "gated", "halting")
CROSS_QUERIES = ("state", "input")
POSITIONS = ("random", "sinusoids")


@dataclass(frozen=True)
class LawtConfig:
    """One model; the defaults are small."""

    input_encoding: str = "P1000"
    """How inputs are written: one of `ENCODINGS`."""
    output_encoding: str = "P1000"
    """How outputs are written."""
    kind: str = "transformer"
    """The transformer, or a recurrent rival: one of `KINDS`."""
    encoder_layers: int = 1
    """Distinct layers of the encoder."""
    decoder_layers: int = 1
    """Distinct layers of the decoder."""
    encoder_width: int = 64
    """Channels of a token in the encoder."""
    decoder_width: int = 64
    """Channels of a token in the decoder."""
    encoder_heads: int = 4
    """Heads of the encoder's attention."""
    decoder_heads: int = 4
    """Heads of the decoder's attentions."""
    encoder_loops: int = 1
    """Passes through the encoder's layers, whose weights the passes share: more than one is a universal transformer."""
    decoder_loops: int = 1
    """Passes through the decoder's layers, plain ones."""
    loop: str = "plain"
    """What a pass does to the encoder's state: replace it, replace a learned share (copy gate), or replace it until
    a learned probability says halt."""
    cross_query: str = "state"
    """What asks the encoder in a decoder layer: the output of self-attention, as in the textbooks, or the layer's
    input, as in the paper's program."""
    num_positions: int = 4096
    """Longest sequence: learned position codes."""
    positions: str = "random"
    """What the position codes start from.

    Random numbers, as in the paper, or sinusoids, in which equal distances are equal
    rotations, so that what is learned of one entry helps with the others."""

    def __post_init__(self) -> None:
        """Reject what would fail, or silently mean something else, in the model.

        Raises:
            ValueError: An unknown choice, a size below one, or sizes that do not fit together.
        """
        choices = {
            "input_encoding": tuple(ENCODINGS),
            "output_encoding": tuple(ENCODINGS),
            "kind": KINDS,
            "loop": LOOPS,
            "cross_query": CROSS_QUERIES,
            "positions": POSITIONS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` must be one of {list(known)}. Got {getattr(self, name)!r}.")
        sides = ("encoder", "decoder")
        counts = [f"{side}_{what}" for side in sides for what in ("layers", "width", "heads", "loops")]
        for name in (*counts, "num_positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1. Got {getattr(self, name)}.")
        for side in sides:
            width, heads = getattr(self, f"{side}_width"), getattr(self, f"{side}_heads")
            if width % heads:
                raise ValueError(f"`{side}_width` must be a multiple of `{side}_heads`. Got {width} and {heads}.")
        if self.positions == "sinusoids" and (self.encoder_width % 2 or self.decoder_width % 2):
            raise ValueError(
                '`encoder_width` and `decoder_width` must be even with positions="sinusoids". '
                f"Got {self.encoder_width} and {self.decoder_width}."
            )
        if self.kind != "transformer" and self.encoder_width != self.decoder_width:
            raise ValueError(
                "`encoder_width` and `decoder_width` must be equal in a recurrent model, whose decoder starts from the "
                f"encoder's state. Got {self.encoder_width} and {self.decoder_width}."
            )
        if self.kind != "transformer" and (self.encoder_loops, self.decoder_loops, self.loop) != (1, 1, "plain"):
            raise ValueError('`encoder_loops`, `decoder_loops` and `loop` are of `kind="transformer"` only.')
        if self.loop != "plain" and self.encoder_loops == 1:
            raise ValueError(f"`encoder_loops` must be at least 2 with loop={self.loop!r}. Got 1.")

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "LawtConfig":
        """Build from plain JSON values."""
        return cls(**fields)

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens that the model reads and writes."""
        return Vocabulary(self.input_encoding, self.output_encoding)
