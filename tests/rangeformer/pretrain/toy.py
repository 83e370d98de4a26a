"""A task of a millisecond a step, to test the trainer with; run as a script, it is the training program with it."""

import sys
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from rangeformer.models.checkpoint import MODELS
from rangeformer.pretrain import Plan, Task
from rangeformer.pretrain.__main__ import main
from rangeformer.pretrain.tasks import TASKS


@dataclass(frozen=True)
class ToyConfig:
    width: int = 8

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "ToyConfig":
        return cls(**fields)


class Toy(nn.Module):
    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(nn.Linear(3, config.width), nn.Tanh(), nn.Linear(config.width, 1))
        # a parameter that only some batches reach, and a buffer that counts its uses
        self.seldom = nn.Parameter(torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@dataclass(frozen=True)
class ToyTask(Task):
    """Learn sum of squares of three numbers."""

    objective: ClassVar[str] = "error"
    mixed_precision: ClassVar[bool] = True

    model: ToyConfig = field(default_factory=ToyConfig)
    nan_share: float = 0.0
    failing_share: float = 0.0
    pause: float = 0.0
    worse_at_end: bool = False

    def build(self, generator: torch.Generator) -> Toy:
        with torch.random.fork_rng(devices=[]):
            model = Toy(self.model)
        with torch.no_grad():
            for parameter in model.layers.parameters():
                parameter.uniform_(-0.5, 0.5, generator=generator)
        return model

    def draw(self, generator: torch.Generator, progress: float) -> tuple[torch.Tensor, torch.Tensor, float]:
        assert 0 <= progress < 1
        time.sleep(self.pause)
        x = 2 * torch.rand(16, 3, generator=generator) - 1
        fate = torch.rand((), generator=generator).item()
        return x, x.square().sum(-1, keepdim=True), fate

    def loss(self, model, batch) -> tuple[torch.Tensor, dict[str, float]]:
        x, y, fate = batch
        if fate < self.failing_share:
            torch.linalg.cholesky(-torch.eye(2))
        loss = (model(x).float() - y).square().mean()
        if fate > 0.5:
            loss = loss + (model.seldom - 1).square()
        if fate > 1 - self.nan_share:
            # the loss is finite, its gradient is not
            loss = loss + 0 * (model.seldom - model.seldom.detach()).abs().sqrt()
        return loss, {"squares": loss.item()}

    def validation_set(self) -> torch.Tensor:
        return torch.linspace(-1, 1, 60).view(20, 3)

    def validate(self, model, validation_set) -> tuple[dict[str, float], list[dict[str, Any]]]:
        error = (model(validation_set).squeeze(-1) - validation_set.square().sum(-1)).abs()
        return (
            {"error": error.mean().item(), "largest": error.max().item()},
            [{"case": i, "error": e} for i, e in enumerate(error.tolist())],
        )

    def finish(self, model, untrained, best) -> bool:
        if not self.worse_at_end:
            return False
        with torch.no_grad():
            model.seldom.fill_(7.0)
        return True


def toy_fields(settings: dict[str, Any] | None = None, **run: Any) -> dict[str, Any]:
    defaults = {
        "num_steps": 24,
        "num_shards": 3,
        "learning_rate": 1e-2,
        "weight_average": 0.8,
        "validate_every": 5,
        "checkpoint_every": 4,
        "num_threads": 1,
    }
    return {"task": "toy", "settings": settings or {}, "run": {**defaults, **run}}


def toy_plan(settings: dict[str, Any] | None = None, **run: Any) -> Plan:
    return Plan.from_fields(toy_fields(settings, **run))


def register(set_item=dict.__setitem__) -> None:
    set_item(TASKS, "toy", ToyTask)
    set_item(MODELS, "Toy", (ToyConfig, Toy))


if __name__ == "__main__":
    register()
    sys.exit(main())
