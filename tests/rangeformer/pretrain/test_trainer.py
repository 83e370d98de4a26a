"""The training loop on a toy: it learns, keeps the best, never ends below its start, and skips what is not finite."""

import math

import pytest
import torch
from toy import ToyTask, toy_plan

from rangeformer.pretrain import pretrain
from rangeformer.pretrain.distributed import Processes
from rangeformer.pretrain.seeding import batch_generator, weights_generator
from rangeformer.pretrain.trainer import learning_rate_share


def equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_and_says_what_it_did():
    messages = []
    result = pretrain(toy_plan(num_steps=300, validate_every=50, learning_rate=3e-2), report=messages.append)
    record = result.record
    assert result.finished
    assert record.improved
    assert record.best["error"] < 0.6 * record.untrained["error"]
    assert (record.step, record.progress, record.num_skipped) == (300, 1.0, 0)
    assert [m["step"] for m in messages if "figures" in m] == [0, 50, 100, 150, 200, 250, 300]
    assert [m["step"] for m in messages if "figures" not in m] == list(range(1, 301))
    assert [row["step"] for row in record.history] == [0, 50, 100, 150, 200, 250, 300]
    assert record.losses["squares"] == pytest.approx(record.losses["loss"], rel=1e-5)


def test_the_best_model_is_what_was_measured():
    plan = toy_plan(num_steps=60)
    result = pretrain(plan)
    figures, table = plan.task.validate(result.model, plan.task.validation_set())
    assert figures == result.record.best
    assert table == result.record.best_table
    assert min(row["error"] for row in result.record.history) == figures["error"]
    assert not result.model.training
    assert not any(p.requires_grad for p in result.model.parameters())


@pytest.mark.parametrize("learning_rate", [1e3, 1e30])
def test_a_hopeless_run_returns_the_untrained_model(learning_rate):
    plan = toy_plan(num_steps=6, validate_every=2, learning_rate=learning_rate, weight_average=0.0, warm_up=0.0)
    result = pretrain(plan)
    assert not result.record.improved
    assert result.record.best == result.record.untrained
    assert equal(result.model, plan.task.build(weights_generator(0)))


def test_equal_seeds_give_equal_weights_and_other_seeds_others():
    first, second, other = (pretrain(toy_plan(seed=seed)).model for seed in (3, 3, 4))
    assert equal(first, second)
    assert not equal(first, other)


def test_one_step_is_adamw_on_the_mean_gradient_of_the_shards():
    """The first step, written out: mean over shards, clipping, AdamW with its own decay, average."""
    plan = toy_plan(num_steps=1, num_shards=4, learning_rate=0.01, warm_up=0.0, weight_decay=0.1, max_gradient_norm=0.5)
    model = plan.task.build(weights_generator(0))
    start = [p.detach().clone() for p in model.parameters()]
    losses = [plan.task.loss(model, plan.task.draw(batch_generator(0, 0, s), 0.0))[0] for s in range(4)]
    torch.stack(losses).mean().backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
    assert norm > 0.5
    expected = []
    for weight, gradient in zip(start, gradients, strict=True):
        g = gradient * 0.5 / norm
        # the first step of Adam: both moments, corrected, are g and g^2
        moved = weight * (1 - 0.01 * 0.1) - 0.01 * g / (g.abs() + 1e-8)
        expected.append(moved.lerp(weight, 1 / 11))
    seen = {}

    class Watching(ToyTask):
        def validate(self, model, validation_set):
            seen["model"] = [p.clone() for p in model.parameters()]
            return super().validate(model, validation_set)

    pretrain(type(plan)("toy", Watching(), plan.run))
    for found, value in zip(seen["model"], expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)


def test_every_shard_has_its_own_generator_whatever_came_before():
    """Another number of steps or of shards does not change what a step's first shard draws."""
    seeds = []

    class Watching(ToyTask):
        def draw(self, generator, progress):
            seeds.append(generator.initial_seed())
            return super().draw(generator, progress)

    for num_shards in (1, 3):
        plan = toy_plan(num_steps=4, num_shards=num_shards)
        pretrain(type(plan)("toy", Watching(), plan.run))
    assert seeds[:4] == seeds[4::3]
    assert len(set(seeds)) == 12


@pytest.mark.parametrize("settings", [{"nan_share": 0.2}, {"failing_share": 0.2}])
def test_steps_that_are_not_finite_are_skipped_and_counted(settings):
    result = pretrain(toy_plan(settings, num_steps=40))
    assert 5 < result.record.num_skipped < 35
    assert all(torch.isfinite(w).all() for w in result.model.state_dict().values())
    assert math.isfinite(result.record.losses["loss"])


def test_nothing_but_skipped_steps_leaves_the_model_alone():
    plan = toy_plan({"failing_share": 1.0})
    result = pretrain(plan)
    assert result.record.num_skipped == 24
    assert result.record.losses == {}
    assert equal(result.model, plan.task.build(weights_generator(0)))


def test_a_task_may_mend_the_best_model_in_the_end():
    result = pretrain(toy_plan({"worse_at_end": True}))
    assert result.model.seldom.item() == 7.0
    assert result.record.history[-1]["mended"]


def test_minutes_end_a_run():
    result = pretrain(toy_plan({"pause": 0.005}, num_steps=10**6, max_minutes=0.01))
    assert 0 < result.record.step < 200
    assert 0.01 <= result.record.minutes < 0.1
    assert result.record.history[-1]["step"] == result.record.step


def test_global_random_state_and_threads_are_left_alone():
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    pretrain(toy_plan(num_steps=2, num_threads=2 if threads == 1 else 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_bfloat16_is_for_the_model_only():
    seen = set()

    class Watching(ToyTask):
        def loss(self, model, batch):
            seen.add(("model", model(batch[0]).dtype))
            seen.add(("loss", (batch[0] @ batch[0].mT).dtype))
            return super().loss(model, batch)

        def validate(self, model, validation_set):
            seen.add(("validation", model(validation_set).dtype))
            return super().validate(model, validation_set)

    plan = toy_plan(num_steps=60, precision="bfloat16")
    result = pretrain(type(plan)("toy", Watching(), plan.run))
    assert seen == {("model", torch.bfloat16), ("loss", torch.float32), ("validation", torch.float32)}
    assert {w.dtype for w in result.model.state_dict().values()} == {torch.float32}
    exact = pretrain(toy_plan(num_steps=60))
    assert result.record.best["error"] == pytest.approx(exact.record.best["error"], rel=0.05)
    assert result.record.best != exact.record.best


def test_bfloat16_needs_the_tasks_consent():
    class Strict(ToyTask):
        mixed_precision = False

    plan = toy_plan(num_steps=5, precision="bfloat16")
    result = pretrain(type(plan)("toy", Strict(), plan.run))
    assert equal(result.model, pretrain(toy_plan(num_steps=5)).model)


def test_learning_rate_rises_then_falls():
    shares = [learning_rate_share(p / 100, 0.1, 0.01) for p in range(101)]
    assert shares[0] < 0.02
    assert shares[10] == 1.0
    assert shares[100] == pytest.approx(0.01)
    assert all(a < b for a, b in zip(shares[:10], shares[1:11], strict=True))
    assert all(a > b for a, b in zip(shares[10:-1], shares[11:], strict=True))
    assert learning_rate_share(0.0, 0.0, 0.5) == 1.0


def test_more_processes_than_shards():
    with pytest.raises(ValueError, match=r"`num_shards` must be at least the number of processes, 4"):
        pretrain(toy_plan(), processes=Processes(0, 4))


def test_an_objective_that_is_no_figure():
    class Wrong(ToyTask):
        objective = "other"

    plan = toy_plan()
    with pytest.raises(ValueError, match=r"objective 'other' is not among its figures \['error', 'largest'\]"):
        pretrain(type(plan)("toy", Wrong(), plan.run))


def test_a_model_with_nothing_to_train():
    class Frozen(ToyTask):
        def build(self, generator):
            return super().build(generator).requires_grad_(False)

    plan = toy_plan()
    with pytest.raises(ValueError, match="parameters that require gradients"):
        pretrain(type(plan)("toy", Frozen(), plan.run))
