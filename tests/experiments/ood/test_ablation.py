"""The ladder's rungs: each switches on one thing, everything else and the budget stay."""

from pathlib import Path

import pytest
from helpers import seeded

import experiments
from rangeformer.pretrain.plan import Plan
from rangeformer.pretrain.tasks.paper import PaperTask

FOLDER = Path(experiments.__file__).parent / "ladder"
FILES = sorted(FOLDER.glob("*.json"))
SWITCHED = [
    {"settings.model.embedding"},
    {"settings.model.attention"},
    {"settings.model.looped", "settings.model.input_injection"},
    {"settings.laws"},
]
# steps differ because their cost does: every rung has about three minutes of one thread
FREE = {"settings.rung", "run.num_steps", "run.validate_every", "run.checkpoint_every"}


def flat(fields: dict, name: str = "") -> dict:
    """Dotted names -> values."""
    found = {}
    for key, value in fields.items():
        found |= flat(value, f"{name}{key}.") if isinstance(value, dict) else {name + key: value}
    return found


def test_each_rung_switches_one_thing_on():
    rungs = [flat(Plan.from_file(file).as_fields()) for file in FILES]
    assert len(rungs) == len(SWITCHED) + 1
    for before, after, expected in zip(rungs, rungs[1:], SWITCHED, strict=False):
        assert {key for key in after if before[key] != after[key]} - FREE == expected
    assert rungs[0]["settings.model.embedding"] == "entries"
    assert len({rung["settings.rung"] for rung in rungs}) == len(rungs)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("operation", ["solve", "inverse"])
def test_every_rung_takes_a_step(file, operation):
    task = Plan.from_file(file, {"settings.batch_size": 2, "settings.model.operation": operation}).task
    assert isinstance(task, PaperTask)
    assert task.card()["rung"][0] == file.stem[0]
    model = task.build(seeded())
    loss, _ = task.loss(model, task.draw(seeded(), 0.0))
    loss.backward()
    assert 0 < loss.item() < float("inf")
