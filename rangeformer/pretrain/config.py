"""How to train, whatever the task is."""

from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class RunConfig:
    """One run of the training program."""

    seed: int = 0
    """Of the initial weights and the training batches."""
    num_steps: int = 6000
    """Upper limit on optimiser steps."""
    max_minutes: float | None = None
    """Upper limit on wall time; learning rate and curriculum follow whichever limit is nearer. Without it the result
    depends on the configuration alone."""
    num_shards: int = 1
    """Batches whose gradients are averaged in each step; dealt to the processes in turn."""
    learning_rate: float = 2e-3
    """Peak of the schedule: linear warm-up, then a cosine."""
    warm_up: float = 0.03
    """Share of the run that is warm-up."""
    final_learning_rate: float = 0.01
    """Where the cosine ends, as a share of the peak."""
    weight_decay: float = 1e-3
    """Decoupled, of AdamW."""
    weight_average: float = 0.995
    """Decay of the exponential moving average of the weights; the average is what is validated and kept."""
    max_gradient_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    validate_every: int = 250
    """Steps between validations."""
    checkpoint_every: int = 100
    """Steps between checkpoints of the whole state of training, from which `--resume` goes on."""
    num_threads: int | None = None
    """CPU threads of each process, set by the command line program.

    None leaves torch's setting, as `pretrain` itself does.
    """
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast around the model, for tasks that allow it."""
    device: str = "cpu"
    """"cpu" or "cuda"; with several processes each takes the CUDA device of its local rank."""

    def __post_init__(self) -> None:
        """Reject what would fail only after minutes."""
        counts = ("num_steps", "num_shards", "validate_every", "checkpoint_every")
        for name in counts:
            _require(getattr(self, name) >= 1, f"`{name}` must be positive. Got {getattr(self, name)}.")
        for name in ("learning_rate", "max_gradient_norm"):
            _require(getattr(self, name) > 0, f"`{name}` must be positive. Got {getattr(self, name)}.")
        for name in ("warm_up", "weight_average"):
            _require(0 <= getattr(self, name) < 1, f"`{name}` must be in [0, 1). Got {getattr(self, name)}.")
        _require(0 <= self.final_learning_rate <= 1, "`final_learning_rate` is a share of the peak, in [0, 1].")
        _require(self.weight_decay >= 0, f"`weight_decay` must not be negative. Got {self.weight_decay}.")
        _require(0 <= self.seed < 2**63, f"`seed` must be in [0, 2^63). Got {self.seed}.")
        _require(self.max_minutes is None or self.max_minutes > 0, "`max_minutes` must be positive, or null for none.")
        _require(self.num_threads is None or self.num_threads >= 1, "`num_threads` must be positive, or null.")
        try:
            kind = torch.device(self.device).type
        except RuntimeError:
            kind = None
        _require(kind in ("cpu", "cuda"), f'`device` must be "cpu" or "cuda". Got {self.device!r}.')


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
