"""What a pretraining run can be told; every field can stand in a JSON file given as --config."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rangeformer.model import RangeFormerConfig
from rangeformer.structured import LAWS

VALIDATION_LAWS = ("kernel_discretised", "kernel_manifold", "kernel_warped", "toeplitz", "stencil")
"""Never trained on: what is kept is what helps on other laws, at other sizes."""


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """One pretraining run."""

    model: RangeFormerConfig = dataclasses.field(default_factory=RangeFormerConfig)
    """The model's sizes."""
    seed: int = 0
    """Of the initial weights, the training matrices and (through another stream) the validation matrices."""
    num_steps: int = 6000
    """Upper limit on optimiser steps."""
    max_minutes: float | None = None
    """Upper limit on wall time; the learning rate follows whichever limit is nearer."""
    batch_size: int = 4
    """Fresh matrices of one size in each step, each of a law of its own."""
    sizes: tuple[int, ...] = (256, 384, 512, 768)
    """Sizes n, one drawn per step."""
    columns: tuple[int, int] = (12, 128)
    """Least and largest number c of pivot columns, log-uniform per step (and at most n / 4)."""
    loops: tuple[int, int] = (1, 4)
    """Least and largest number of loops, uniform per step."""
    num_neighbors: tuple[int, int] = (4, 16)
    """Least and largest k, uniform per step: the k strongest residual neighbours of each row are to be brought near.
    Few neighbours in a small matrix are to it what many are to a large one."""
    candidates_per_neighbor: tuple[float, float] = (1.5, 4.0)
    """Least and largest m / k, uniform per step: the neighbours must be among the m nearest."""
    kernel_share: float = 0.8
    """Share of kernel matrices; the rest is of all other laws."""
    validation_laws: tuple[str, ...] = VALIDATION_LAWS
    """Laws kept for validation; never trained on."""
    validation_neighbors: int = 8
    """k of the validation; the candidates are 2 k."""
    validation_size: int = 800
    """n of the validation matrices."""
    validation_columns: tuple[int, ...] = (16, 32, 64, 128)
    """c of the validation matrices; each law meets each c, twice."""
    validate_every: int = 250
    """Steps between validations."""
    learning_rate: float = 2e-3
    """Peak of the schedule: linear warm-up over 3 %, cosine to a hundredth."""
    weight_average: float = 0.995
    """Decay of the exponential moving average of the weights; the average is what is validated and kept."""
    range_weight: float = 0.05
    """Weight of the range loss beside the neighbour loss."""
    max_gradient_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    num_threads: int | None = None
    """CPU threads; None leaves torch's setting."""

    def __post_init__(self) -> None:
        """Reject what would fail only after minutes."""
        unknown = set(self.validation_laws) - set(LAWS)
        if unknown:
            raise ValueError(f"`validation_laws` has unknown laws {sorted(unknown)}. Known: {sorted(LAWS)}.")
        if not self.training_laws(kernels=True) or not self.training_laws(kernels=False):
            raise ValueError("`validation_laws` leaves no kernel law, or no other law, to train on.")
        if self.num_steps < 1 or self.batch_size < 1 or self.validate_every < 1:
            raise ValueError("`num_steps`, `batch_size` and `validate_every` must be positive.")
        needed = 2 * self.num_neighbors[1] * self.candidates_per_neighbor[1]
        if min(self.sizes) <= needed or self.validation_size <= 2 * self.validation_neighbors:
            raise ValueError(
                f"`sizes` must exceed twice the largest number of candidates, {needed:g}, and `validation_size` its "
                f"candidates, {2 * self.validation_neighbors}. Got {self.sizes} and {self.validation_size}."
            )

    def training_laws(self, *, kernels: bool) -> tuple[str, ...]:
        """Laws to train on: kernel laws or the others."""
        return tuple(x for x in LAWS if x.startswith("kernel_") == kernels and x not in self.validation_laws)

    @classmethod
    def from_json(cls, path: str | Path, **overrides: Any) -> "PretrainConfig":
        """Read a JSON object of fields; `overrides` win."""
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"--config: {str(path)!r} is not valid JSON ({error}).") from error
        return cls.from_fields({**fields, **overrides})

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "PretrainConfig":
        """Build from plain JSON values: lists become tuples, `model` a `RangeFormerConfig`."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = set(fields) - known
        if unknown:
            raise ValueError(f"Unknown configuration fields {sorted(unknown)}. Known: {sorted(known)}.")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        if isinstance(values.get("model"), dict):
            values["model"] = RangeFormerConfig.from_fields(values["model"])
        return cls(**values)
