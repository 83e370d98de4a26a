"""The task "galerkin": starts at the classical algorithm, has a gradient, and a step along it helps."""

import json
from pathlib import Path

import pytest
import torch
from helpers import seeded

import rangeformer
from rangeformer.pretrain.config import RunConfig
from rangeformer.pretrain.task import Task
from rangeformer.pretrain.tasks import TASKS
from rangeformer.pretrain.tasks.galerkin import GalerkinTask, log_residuals

SMALL = GalerkinTask(
    laws=("kernel_uniform", "plate"),
    sizes=(40, 60),
    batch_size=4,
    widths=(4, 6),
    loops=(2, 3),
    validation_laws=("stencil", "wishart"),
    validation_sizes=(50,),
    validation_width=6,
    validation_loops=(2, 4),
    validation_members=2,
)


def test_it_is_a_task_that_config_files_know():
    assert isinstance(SMALL, Task)
    assert TASKS["galerkin"] is GalerkinTask
    path = Path(rangeformer.__file__).parent / "pretrain" / "configs" / "galerkin.json"
    config = json.loads(path.read_text())
    assert config["task"] == "galerkin"
    GalerkinTask(**config["settings"])
    RunConfig(**config["run"])


def test_untrained_is_the_reference():
    figures, rows = SMALL.validate(SMALL.build(seeded()), SMALL.validation_set())
    assert figures == pytest.approx({"ratio": 1.0, "worst": 1.0})
    assert len(rows) == 4
    assert {row["law"] for row in rows} == {"stencil", "wishart"}


def test_draws_depend_on_the_generator_alone():
    first, second = (SMALL.draw(seeded(3), 0.7) for _ in range(2))
    assert torch.equal(first.problems.matrix, second.problems.matrix)
    assert first.num_loops == second.num_loops


def test_steps_along_the_gradient_lower_the_loss_on_a_fixed_batch():
    model = SMALL.build(seeded())
    batch = SMALL.draw(seeded(1), 0.9)

    def loss() -> torch.Tensor:
        return log_residuals(model, batch.problems, batch.num_loops, 6, seeded(2)).mean()

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    before = loss().item()
    for _ in range(25):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < before - 0.02


def test_complete_spaces_are_refused():
    with pytest.raises(ValueError, match="`sizes` must be above widths x loops = 64, or the space is complete"):
        GalerkinTask(sizes=(64,))
    with pytest.raises(ValueError, match="`validation_sizes` must be above"):
        GalerkinTask(validation_sizes=(100,))
    with pytest.raises(ValueError, match="`validation_laws` must be other distributions"):
        GalerkinTask(laws=("stencil",))
