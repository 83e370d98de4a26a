"""What a training task is: a model, batches from a generator, a loss, and figures on matrices it never trains on."""

from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Task(Protocol):
    """One thing to train for; a frozen dataclass whose fields are its settings, plain values that can stand in JSON.

    Inherit from it: what has a body here is optional. Nothing but the generator that is passed in may be drawn from,
    so that a batch depends on (seed, step, shard) alone.

    Attributes:
        objective: Key of the validation figure by which the best model is kept; smaller is better.
        mixed_precision: Whether `forward` of the model may run under autocast to bfloat16. The loss, and whatever else
            the task computes, stays in the precision of its inputs.
        figure_titles: What the figures are called in pictures; a figure without a title goes by its key.
    """

    objective: ClassVar[str]
    mixed_precision: ClassVar[bool] = False
    figure_titles: ClassVar[dict[str, str]] = {}

    def build(self, generator: torch.Generator) -> nn.Module:
        """The untrained model, with `config`, a frozen dataclass of plain values; of a class in `checkpoint.MODELS`.

        Args:
            generator: Source of the initial weights, on the CPU.
        """
        ...

    def draw(self, generator: torch.Generator, progress: float) -> Any:
        """One shard's batch, on the generator's device; sizes, numbers of loops and all else random come from here.

        Args:
            generator: Freshly seeded for this step and shard.
            progress: Share of the run that is over, in [0, 1); drives the curriculum.
        """
        ...

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """The scalar to minimise, and named parts of it to be shown; a loss that is not finite skips the step."""
        ...

    def validation_set(self) -> Any:
        """What to validate on, the same in every run: distributions and sizes that are not trained on. On the CPU."""
        ...

    def validate(self, model: nn.Module, validation_set: Any) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Measure a model, which may be on another device than the set.

        Returns:
            The figures, and a table with one row for each case.
        """
        ...

    def finish(self, model: nn.Module, untrained: dict[str, float], best: dict[str, float]) -> bool:
        """Mend the best model at the end where a figure other than the objective got worse; say whether it changed."""
        return False

    def card(self) -> dict[str, Any]:
        """What the checkpoint's card says beside the settings: "training_laws", the "meaning" of the figures..."""
        return {}
