"""All that a run of the training program is at one moment."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Record:
    """The part of the state that is numbers: what JSON can hold.

    Attributes:
        untrained: Validation figures of the model before training.
        untrained_table: Their table.
        best: Figures of the best model so far; the untrained one if nothing beat it.
        best_table: Their table.
        improved: Whether training beat the untrained model.
        step: Optimiser steps taken.
        progress: Share of the run that is over, by the nearer of the two limits.
        minutes: Wall time of training and validation.
        num_skipped: Steps left out because a loss or a gradient was not finite.
        losses: Running means of the loss and of its parts.
        history: One row for each validation.
    """

    untrained: dict[str, float]
    untrained_table: list[dict[str, Any]]
    best: dict[str, float]
    best_table: list[dict[str, Any]]
    improved: bool = False
    step: int = 0
    progress: float = 0.0
    minutes: float = 0.0
    num_skipped: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Weights:
    """The part of the state that is tensors.

    Attributes:
        model: What is trained.
        average: Its exponential moving average.
        best: The average that validated best.
        optimizer: AdamW, whose state is part of this.
    """

    model: nn.Module
    average: nn.Module
    best: nn.Module
    optimizer: torch.optim.Optimizer

    @classmethod
    def start(cls, model: nn.Module, weight_decay: float) -> "Weights":
        """Average and best model are the untrained one."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trained:
            raise ValueError("The task's `build` must return a model with parameters that require gradients. Got none.")
        average, best = (copy.deepcopy(model).requires_grad_(False).eval() for _ in range(2))
        # the learning rate is set in each step
        optimizer = torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.98), weight_decay=weight_decay)
        return cls(model, average, best, optimizer)

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that the optimiser moves."""
        return self.optimizer.param_groups[0]["params"]

    @torch.no_grad()
    def update_average(self, decay: float) -> None:
        """One step of the moving average; what is no parameter is copied."""
        for mean, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)
        for mean, value in zip(self.average.buffers(), self.model.buffers(), strict=True):
            mean.copy_(value)

    def keep(self) -> None:
        """The average is the best model so far."""
        self.best.load_state_dict(self.average.state_dict())

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by a name of its own, on the CPU."""
        found = {
            f"{part}.{name}": value
            for part in ("model", "average", "best")
            for name, value in getattr(self, part).state_dict().items()
        }
        for index, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        return {name: value.detach().to("cpu").contiguous().clone() for name, value in found.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take the values that `tensors` returned."""
        for part in ("model", "average", "best"):
            getattr(self, part).load_state_dict(_below(part, tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer", tensors).items():
            index, _, moment = name.partition(".")
            moments.setdefault(int(index), {})[moment] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _below(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one part, by their names in it."""
    prefix = part + "."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
