"""LAWT as a training task: every task in every encoding end to end, its batches, its loss, its configurations."""

import math

import pytest
import torch
from helpers import seeded

from rangeformer.baselines.lawt import ENCODINGS, TASKS, LawtRecurrent, LawtTransformer, evaluate
from rangeformer.baselines.lawt.symbols import PADDING, TASK_TOKENS
from rangeformer.pretrain import Plan, pretrain
from rangeformer.pretrain.plan import CONFIGS
from rangeformer.pretrain.task import Task
from rangeformer.pretrain.tasks.lawt import LawtTask

TINY = {"encoder_width": 8, "decoder_width": 8, "encoder_heads": 2, "decoder_heads": 2, "num_positions": 64}
SHIPPED = sorted(path.stem for path in CONFIGS.glob("lawt-*.json"))


def plan(model=None, source=None, settings=None, **run) -> Plan:
    encodings = {"input_encoding": "P10", "output_encoding": "P10"}
    return Plan.from_fields(
        {
            "task": "lawt",
            "settings": {
                "model": {**TINY, **encodings, **(model or {})},
                "source": {"rows": [2, 2], **(source or {})},
                "batch_size": 4,
                "validation_size": 4,
                **(settings or {}),
            },
            "run": {"num_steps": 2, "validate_every": 2, "learning_rate": 1e-3, "weight_decay": 0.0, **run},
        }
    )


def lawt(*arguments, **options) -> LawtTask:
    task = plan(*arguments, **options).task
    assert isinstance(task, LawtTask)
    return task


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_pair_trains_decodes_and_scores(task, encoding):
    chosen = plan({"input_encoding": encoding, "output_encoding": encoding}, {"tasks": [task]}, {"batch_size": 2})
    result = pretrain(chosen)
    record = result.record
    assert record.improved
    assert record.best["cross_entropy"] < record.untrained["cross_entropy"]
    assert record.num_skipped == 0
    assert isinstance(chosen.task, LawtTask)
    [scores] = evaluate(result.model, chosen.task.validation_set())
    figures = scores.figures()
    assert 0 <= figures["right_0.05"] <= 1
    # two steps do not teach a matrix: it is malformed or wrong, and either is said
    assert figures["exact"] == 0
    assert (scores.error[~scores.well_formed] == torch.inf).all()


def test_it_learns():
    """Dimensions, signs, exponents and the end, within a few steps; which entry goes where takes hundreds."""
    record = pretrain(plan(num_steps=25, validate_every=25, learning_rate=2e-2, weight_average=0.8)).record
    assert record.best["cross_entropy"] < 0.6 * record.untrained["cross_entropy"]


def test_sizes_and_tasks_are_mixed_in_a_batch():
    task = lawt(source={"tasks": ["addition", "svd"], "rows": [1, 2], "columns": [1, 2]}, settings={"batch_size": 40})
    batch = task.draw(seeded(), 0.0)
    assert batch.source.shape[0] == batch.target.shape[0] == 40
    for tokens in (batch.source, batch.target):
        assert set(tokens[:, 1].tolist()) == {TASK_TOKENS["addition"], TASK_TOKENS["svd"]}
        assert (tokens == PADDING).any()
    assert torch.equal(batch.source[:, 1], batch.target[:, 1])
    figures, table = task.validate(task.build(seeded()), task.validation_set())
    assert [row["task"] for row in table] == ["addition", "svd"]
    assert math.isfinite(figures["cross_entropy"])


def test_a_batch_comes_from_its_generator_alone():
    task = lawt(source={"tasks": ["eigenvalues"], "laws": ["laplace", "semicircle"], "input_noise": 0.1})
    before = torch.random.get_rng_state()
    first, second = (task.draw(seeded(3), progress) for progress in (0.0, 0.9))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.source, second.source)
    assert torch.equal(first.target, second.target)
    assert not torch.equal(first.source, task.draw(seeded(4), 0.0).source)


@pytest.mark.parametrize("name", ["addition", "matrix_vector"])
def test_rows_come_one_after_the_other(name):
    task = lawt(
        {"num_positions": 128},
        {"tasks": [name], "rows": [3, 3]},
        {"rows_from": [0.25, 0.5], "batch_size": 4},
        num_steps=100,
    )
    entry = slice(3, 3 + task.model.vocabulary.input.width)
    counts, lengths = [], []
    for progress in (0.0, 0.24, 0.25, 0.49, 0.5, 1.0):
        source = task.draw(seeded(), progress).source
        counts.append(len(source))
        lengths.append((source != PADDING).sum(1).max().item())
        # the first entry is where it will be, and the number of columns does not change
        assert (source[:, entry] != PADDING).all()
        assert source[:, 2].unique().numel() == 1
    assert counts == [12, 12, 6, 6, 4, 4]
    assert lengths[0] == lengths[1] < lengths[2] == lengths[3] < lengths[4] == lengths[5]
    assert task.num_examples(100, 100) == 25 * 12 + 25 * 6 + 50 * 4
    assert task.num_examples(30, 100) == 25 * 12 + 5 * 6
    assert {problems.shape for problems in task.validation_set()} == {(3, 3)}


@pytest.mark.parametrize(("starts", "counts"), [([0.5], [12, 12, 4, 4]), ([0.2, 0.4, 0.6], [12, 6, 4, 4])])
def test_rows_are_full_after_the_last_start(starts, counts):
    task = lawt({"num_positions": 128}, {"tasks": ["addition"], "rows": [3, 3]}, {"rows_from": starts, "batch_size": 4})
    assert [len(task.draw(seeded(), progress).source) for progress in (0.0, 0.3, 0.5, 0.7)] == counts


def test_negative_numbers_come_little_by_little():
    task = lawt(
        {"num_positions": 128},
        {"tasks": ["matrix_vector"], "rows": [3, 3]},
        {"signs_between": [0.2, 0.6], "rows_from": [0.1, 0.3], "batch_size": 400},
    )
    numbers = torch.tensor([1.0, -1.0], dtype=torch.float64)
    plus, minus = task.model.vocabulary.input.tokens(numbers)[:, 0]  # P10 writes signs as tokens of their own
    shares = []
    for progress in (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0):
        source = task.draw(seeded(), progress).source
        negative, positive = (source == minus).sum().item(), (source == plus).sum().item()
        shares.append(negative / (negative + positive))
    assert shares[:2] == [0.0, 0.0]
    assert shares[2:] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5], abs=0.03)
    assert min(problems.output.min() for problems in task.validation_set()) < 0


def test_loss_is_the_mean_over_all_target_tokens():
    task = lawt(source={"rows": [1, 2]})
    model, batch = task.build(seeded()), task.draw(seeded(), 0.0)
    loss, parts = task.loss(model, batch)
    logits, _ = model(batch.source, batch.target[:, :-1])
    total, count = 0.0, 0
    for row, wanted in zip(logits.log_softmax(-1), batch.target[:, 1:], strict=True):
        for gains, token in zip(row, wanted.tolist(), strict=True):
            if token != PADDING:
                total, count = total - gains[token].item(), count + 1
    assert loss.item() == pytest.approx(total / count, rel=1e-5)
    assert parts == {"cross_entropy": loss.item()}


def test_passes_have_a_price():
    task = lawt({"encoder_loops": 3, "loop": "halting"}, settings={"passes_price": 0.1})
    loss, parts = task.loss(task.build(seeded()), task.draw(seeded(), 0.0))
    assert 1 < parts["passes"] < 3
    assert loss.item() == pytest.approx(parts["cross_entropy"] + 0.1 * parts["passes"])


def test_validation_is_the_same_in_every_run():
    task = lawt()
    first, second = task.validation_set(), task.validation_set()
    assert all(torch.equal(a.input, b.input) for a, b in zip(first, second, strict=True))
    model = task.build(seeded())
    assert task.validate(model, first) == task.validate(model, second)


@pytest.mark.parametrize("kind", ["transformer", "lstm", "gru"])
def test_kinds(kind):
    model = lawt({"kind": kind}).build(seeded())
    assert isinstance(model, LawtTransformer if kind == "transformer" else LawtRecurrent)


def test_mixed_precision_is_safe_here():
    """What `mixed_precision` claims: under autocast to bfloat16 the gradient points where the exact one does."""
    task = lawt(settings={"batch_size": 16})
    gradients = []
    for autocast in (False, True):
        model = task.build(seeded())
        if autocast:
            model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
        task.loss(model, task.draw(seeded(1), 0.5))[0].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert not torch.equal(*gradients)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations(name):
    chosen = Plan.from_file(name, {"settings.batch_size": 2})
    task: Task = chosen.task
    assert isinstance(task, LawtTask)
    assert name.removeprefix("lawt-").replace("-", "_").startswith(task.source.tasks[0])
    loss, _ = task.loss(task.build(seeded()), task.draw(seeded(), 0.0))
    assert torch.isfinite(loss)
    assert chosen.run.weight_decay == 0
    assert Plan.from_fields(chosen.as_fields()) == chosen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, {}, {"rows_from": [0.5, 0.2]}), r"`rows_from` must ascend within \[0, 1\]"),
        (({}, {"tasks": ["inversion"]}, {"rows_from": [0.5]}), "`rows_from` must be empty with tasks of square"),
        (({}, {}, {"signs_between": [0.5, 0.5]}), "`signs_between` must be 0 <= start < end <= 1. Got"),
        (
            ({}, {"tasks": ["eigenvalues"]}, {"signs_between": [0, 1]}),
            "`signs_between` must be None with tasks of symm",
        ),
        (({"num_positions": 20},), "`num_positions` must be at least 24, the longest sequence. Got 20"),
        (({}, {}, {"batch_size": 0}), "must be positive"),
        (({}, {}, {"passes_price": -1.0}), "must not be negative"),
        (({}, {"tasks": ["addition"], "rows": [60, 60]}), "too large for addition"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan(*arguments)
