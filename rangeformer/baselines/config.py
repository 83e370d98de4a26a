"""Sizes and choices of the paper's RangeFormer and of the steps of its ablation."""

from dataclasses import dataclass
from typing import Any

VECTORS = ("solve", "eigenvalues")
SCALARS = ("logdet", "largest_eigenvalue", "trace")
OPERATIONS = (*VECTORS, *SCALARS, "inverse")
EMBEDDINGS = ("rows", "randomised", "entries")
POSITIONS = ("none", "sine", "learned", "rope", "index")
ATTENTION = ("softmax", "elu", "taylor")


@dataclass(frozen=True)
class PaperConfig:
    """One model of one operation; the defaults are the full RangeFormer of the paper, at our size."""

    operation: str = "solve"
    """What it answers: one of `OPERATIONS`."""
    n_max: int = 50
    """Largest size: rows are zero-padded to it, and scalar and matrix read-outs are tied to it."""
    channels: int = 64
    """D, length of a row's embedding. A right-hand side and the index code are one more channel each."""
    num_heads: int = 8
    """Heads of the attention, each of D / num_heads channels."""
    num_loops: int = 8
    """R, passes through the block (or number of distinct blocks)."""
    looped: bool = True
    """One block with shared weights, R times; or R blocks with weights of their own."""
    attention: str = "taylor"
    """One of `ATTENTION`: the quadratic softmax, or linear with 1 + elu or second-order Taylor features."""
    embedding: str = "rows"
    """Tokens: padded rows, learned projection; rows of A Omega, Omega random; or the n^2 entries (NumFormer)."""
    position: str = "learned"
    """Position code of a row (of a row and a column where the entries are the tokens): one of `POSITIONS`."""
    input_injection: bool = True
    """Add the embedding back after each loop."""
    mlp_factor: int = 4
    """Hidden units of the MLP per channel."""
    answer_scale: float = 1.0
    """Unit of the read-out, near the answers' typical size, so that the weights need not grow to reach it."""

    def __post_init__(self) -> None:
        """Reject what would fail, or silently mean something else, in the model.

        Raises:
            ValueError: An unknown choice, a size below one, or heads that do not divide the channels.
        """
        choices = {
            "operation": OPERATIONS,
            "attention": ATTENTION,
            "embedding": EMBEDDINGS,
            "position": POSITIONS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` must be one of {list(known)}. Got {getattr(self, name)!r}.")
        for name in ("n_max", "channels", "num_heads", "num_loops", "mlp_factor"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1. Got {getattr(self, name)}.")
        if not self.answer_scale > 0:
            raise ValueError(f"`answer_scale` must be positive. Got {self.answer_scale}.")
        unit = 2 * self.num_heads if self.position == "rope" else self.num_heads
        if self.channels % unit:
            raise ValueError(
                f"`channels` must be a multiple of `num_heads`, and of twice that for rope, which rotates pairs. "
                f"Got {self.channels} channels and {self.num_heads} heads."
            )
        if self.embedding == "entries" and self.position == "rope":
            raise ValueError('`position="rope"` turns one index; entries have two. Use "learned", "sine" or "index".')

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "PaperConfig":
        """Build from plain JSON values."""
        return cls(**fields)

    @property
    def width(self) -> int:
        """Channels of a token in the block: D, the right-hand side of a row, the index codes."""
        rhs = self.operation == "solve" and self.embedding != "entries"
        codes = (2 if self.embedding == "entries" else 1) if self.position == "index" else 0
        return self.channels + rhs + codes

    @property
    def tied_to_n_max(self) -> bool:
        """Whether a parameter's shape depends on n_max, so that larger matrices cannot be read."""
        return self.embedding == "rows" or self.position == "learned" or self._tied_read_out

    @property
    def _tied_read_out(self) -> bool:
        return self.operation in SCALARS or (self.operation == "inverse" and self.embedding != "entries")
