"""Config files: what is right becomes a plan, what is wrong says what and where, before any work."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from toy import ToyConfig, ToyTask, toy_fields, toy_plan

from rangeformer.pretrain import Plan, RunConfig
from rangeformer.pretrain.fields import from_fields
from rangeformer.pretrain.plan import CONFIGS
from rangeformer.pretrain.tasks import TASKS


@dataclass(frozen=True)
class Everything:
    required: int
    number: float = 1.0
    flag: bool = False
    word: str = "a"
    choice: Literal["x", "y"] = "x"
    maybe: int | None = 3
    many: tuple[float, ...] = ()
    pair: tuple[int, int] = (1, 2)
    either: float | tuple[float, float] = 1.0
    weights: dict[str, float] = field(default_factory=dict)
    model: ToyConfig = field(default_factory=ToyConfig)


def test_every_kind_of_field():
    fields = {
        "required": 1,
        "number": 2,
        "flag": True,
        "word": "b",
        "choice": "y",
        "maybe": None,
        "many": [1, 2.5],
        "pair": [3, 4],
        "either": [1, 2],
        "weights": {"a": 1},
        "model": {"width": 5},
    }
    built = from_fields(Everything, json.loads(json.dumps(fields)), "the test")
    assert built == Everything(
        1, 2.0, True, "b", "y", None, (1.0, 2.5), (3, 4), (1.0, 2.0), {"a": 1.0}, ToyConfig(width=5)
    )
    assert type(built.number) is float


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ([], TypeError, r"the test must be an object of fields\. Got \[\]"),
        ({}, ValueError, r"Fields \['required'\] are missing in the test"),
        ({"required": 1, "nonsense": 2}, ValueError, r"Unknown fields \['nonsense'\] in the test\. Known: \['choice'"),
        ({"required": 1.5}, TypeError, r"`required` in the test must be of type int\. Got 1\.5"),
        ({"required": True}, TypeError, "must be of type int. Got True"),
        ({"required": "1"}, TypeError, "must be of type int. Got '1'"),
        ({"required": None}, TypeError, "must be of type int. Got None"),
        ({"required": 1, "number": "x"}, TypeError, "`number` in the test must be of type float"),
        ({"required": 1, "number": float("nan")}, ValueError, "`number` in the test must be finite"),
        ({"required": 1, "flag": 1}, TypeError, "`flag` in the test must be of type bool"),
        ({"required": 1, "choice": "z"}, ValueError, r"`choice` in the test must be one of \['x', 'y'\]"),
        ({"required": 1, "maybe": "z"}, TypeError, "`maybe` in the test must be of type int"),
        ({"required": 1, "many": 3}, TypeError, "`many` in the test must be a list"),
        ({"required": 1, "many": [1, "x"]}, TypeError, "entry 1 of `many` in the test must be of type float"),
        ({"required": 1, "pair": [1]}, ValueError, r"`pair` in the test must have 2 entries\. Got \[1\]"),
        ({"required": 1, "weights": []}, TypeError, "`weights` in the test must be an object"),
        ({"required": 1, "weights": {"a": "b"}}, TypeError, "`weights` in the test, 'a', must be of type float"),
        ({"required": 1, "model": {"height": 3}}, ValueError, r"Unknown fields \['height'\] in `model` in the test"),
    ],
)
def test_what_does_not_fit_is_named(fields, error, message):
    with pytest.raises(error, match=message):
        from_fields(Everything, fields, "the test")


def test_an_annotation_that_json_cannot_fill():
    @dataclass(frozen=True)
    class Strange:
        value: Any = None

    with pytest.raises(TypeError, match="`value` in the test has an annotation that no JSON value fits"):
        from_fields(Strange, {"value": 1}, "the test")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_steps": 0}, "`num_steps` must be positive"),
        ({"num_shards": 0}, "`num_shards` must be positive"),
        ({"validate_every": 0}, "`validate_every` must be positive"),
        ({"checkpoint_every": -1}, "`checkpoint_every` must be positive"),
        ({"learning_rate": 0.0}, "`learning_rate` must be positive"),
        ({"max_gradient_norm": -1.0}, "`max_gradient_norm` must be positive"),
        ({"warm_up": 1.0}, r"`warm_up` must be in \[0, 1\)"),
        ({"weight_average": 1.0}, r"`weight_average` must be in \[0, 1\)"),
        ({"final_learning_rate": 2.0}, "`final_learning_rate` is a share"),
        ({"weight_decay": -0.1}, "`weight_decay` must not be negative"),
        ({"seed": -1}, "`seed` must be in"),
        ({"max_minutes": 0.0}, "`max_minutes` must be positive"),
        ({"num_threads": 0}, "`num_threads` must be positive"),
        ({"device": "tpu"}, '`device` must be "cpu" or "cuda"'),
        ({"device": "meta"}, '`device` must be "cpu" or "cuda"'),
        ({"precision": "float16"}, r"`precision` in the run's fields must be one of \['float32', 'bfloat16'\]"),
    ],
)
def test_impossible_runs(fields, message):
    with pytest.raises(ValueError, match=message):
        from_fields(RunConfig, fields, "the run's fields")


def test_a_plan_comes_back_from_its_fields():
    plan = toy_plan({"model": {"width": 3}, "nan_share": 0.5}, seed=7)
    assert plan.task == ToyTask(model=ToyConfig(width=3), nan_share=0.5)
    assert plan.run.seed == 7
    assert Plan.from_fields(json.loads(json.dumps(plan.as_fields()))) == plan


def test_a_file_with_changes(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(toy_fields({"nan_share": 0.5})))
    changes = {"settings.model.width": 2, "run.seed": 9}
    assert Plan.from_file(path, changes) == toy_plan({"model": {"width": 2}, "nan_share": 0.5}, seed=9)
    with pytest.raises(TypeError, match=r"Cannot set 'settings\.nan_share\.a': .* is not an object but 0\.5"):
        Plan.from_file(path, {"settings.nan_share.a": 1})


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", ValueError, r"config\.json' is not valid JSON"),
        ("[]", TypeError, "must be an object"),
        ("{}", ValueError, r"`task` must be one of \[.*'features'.*\]\. Got None"),
        ('{"task": "toy", "setting": {}}', ValueError, r"Unknown fields \['setting'\] in the configuration"),
        ('{"task": "toy", "settings": {"x": 1}}', ValueError, r"Unknown fields \['x'\] in the settings of task 'toy'"),
        ('{"task": "toy", "run": {"x": 1}}', ValueError, r"Unknown fields \['x'\] in the run's fields"),
        ('{"task": "toy", "run": []}', TypeError, "the run's fields must be an object"),
    ],
)
def test_broken_files(tmp_path, text, error, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(error, match=message):
        Plan.from_file(path)


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError, match=r"no configuration 'nowhere\.json'.*'features'"):
        Plan.from_file("nowhere.json")


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.json")))
def test_shipped_configurations_are_right(name):
    plan = Plan.from_file(name)
    assert plan.name in TASKS
    assert plan.task.objective
