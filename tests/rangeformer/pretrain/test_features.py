"""The features task: it learns, it never ends below its start, and its parts are what they say."""

import dataclasses
import json

import pytest
import torch

from rangeformer.models.checkpoint import SHIPPED, load, read_card
from rangeformer.models.features import RangeFormer, RangeFormerConfig
from rangeformer.pretrain import Plan, RunConfig, pretrain
from rangeformer.pretrain.__main__ import main
from rangeformer.pretrain.features.objectives import (
    conditional_log_variance,
    missed_energy,
    neighbor_loss,
    proposed_neighbors,
    strongest_earlier,
)
from rangeformer.pretrain.features.problems import Problem, make_problem
from rangeformer.pretrain.seeding import weights_generator
from rangeformer.pretrain.tasks.features import FeaturesTask

TINY = FeaturesTask(
    model=RangeFormerConfig(channels=16, num_heads=2, num_waves=8),
    batch_size=2,
    sizes=(64, 80),
    columns=(6, 12),
    num_neighbors=(3, 6),
    candidates_per_neighbor=(1.5, 3.0),
    validation_neighbors=6,
    validation_laws=("kernel_discretised", "toeplitz"),
    validation_size=96,
    validation_columns=(8, 16),
)
RUN = RunConfig(num_steps=10, validate_every=5, learning_rate=5e-3, weight_average=0.5)


def plan(task: FeaturesTask = TINY, **run) -> Plan:
    return Plan("features", task, dataclasses.replace(RUN, **run))


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem(
        ["kernel_gaussian"] * 2, 100, 10, noisy_diagonal=True, generator=torch.Generator().manual_seed(0)
    )


def test_problem_is_what_it_says(problem):
    residual = problem.residual + problem.factor @ problem.factor.mT
    off = ~torch.eye(100, dtype=torch.bool)
    torch.testing.assert_close(residual[:, off].float(), problem.kernel[:, off], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(problem.kernel.diagonal(dim1=-2, dim2=-1).mean(-1), torch.ones(2))
    assert (problem.correlation <= 1 + 1e-6).all()
    assert (problem.diagonal > problem.kernel.diagonal(dim1=-2, dim2=-1)).all()


def test_conditional_log_variance_naive(problem):
    neighbors = strongest_earlier(problem, 5)
    expected = []
    for residual, rows in zip(problem.residual, neighbors, strict=True):
        total = 0.0
        for i, row in enumerate(rows):
            near = row[row < i]
            weights = torch.linalg.solve(residual[near][:, near], residual[near, i])
            total += (residual[i, i] - weights @ residual[near, i]).log()
        expected.append(total / len(rows))
    torch.testing.assert_close(conditional_log_variance(problem, neighbors), torch.stack(expected))


def test_all_rows_as_candidates_are_the_oracle(problem):
    embedding = torch.randn(2, 100, 3, generator=torch.Generator().manual_seed(0))
    proposed = proposed_neighbors(problem, embedding, 99, 6)
    torch.testing.assert_close(
        conditional_log_variance(problem, proposed), conditional_log_variance(problem, strongest_earlier(problem, 6))
    )


def test_neighbor_loss_ranks_good_embeddings_first_and_ignores_their_scale(problem):
    values, vectors = torch.linalg.eigh(problem.correlation.double())
    good = RangeFormer.untrained()(problem.factor, problem.residual_diagonal, problem.diagonal).neighbors.float()
    bad = torch.randn(good.shape, generator=torch.Generator().manual_seed(0))
    losses = [neighbor_loss(x, problem.correlation, 6, 12) for x in (good, bad)]
    assert losses[0] < 0.7 * losses[1]
    torch.testing.assert_close(neighbor_loss(100 * good, problem.correlation, 6, 12), losses[0], rtol=1e-3, atol=1e-5)


def test_missed_energy_against_a_projection(problem):
    sketch = problem.factor[..., :6].float()
    basis, _ = torch.linalg.qr(sketch.double())
    kernel = problem.kernel.double()
    expected = (kernel - basis @ (basis.mT @ kernel)).square().sum((-1, -2)) / kernel.square().sum((-1, -2))
    torch.testing.assert_close(missed_energy(sketch, problem.kernel), expected.float(), rtol=0.02, atol=1e-4)


def test_losses_have_finite_gradients_where_rows_coincide():
    equal = torch.ones(1, 60, 3, requires_grad=True)
    correlation = (torch.ones(60, 60) - torch.eye(60))[None]
    neighbor_loss(equal, correlation, 6, 12).backward()
    assert torch.isfinite(equal.grad).all()


def test_ten_steps_lower_the_loss_and_never_end_below_the_start():
    messages = []
    result = pretrain(plan(), report=messages.append)
    record = result.record
    assert record.step == 10
    assert record.num_skipped == 0
    assert record.best["missed"] <= record.untrained["missed"]
    assert record.best["range"] <= record.untrained["range"]
    assert [m["step"] for m in messages if "figures" in m] == [0, 5, 10]
    # the same problem, before and after: the loss itself went down
    problem = make_problem(
        ["kernel_gaussian"] * 4, 80, 8, noisy_diagonal=True, generator=torch.Generator().manual_seed(3)
    )
    inputs = problem.factor, problem.residual_diagonal, problem.diagonal
    losses = [
        neighbor_loss(m(*inputs).neighbors.float(), problem.correlation, 6, 10)
        for m in (RangeFormer.untrained(TINY.model), result.model)
    ]
    assert losses[1] < 1.05 * losses[0]
    recomputed, table = TINY.validate(result.model, TINY.validation_set())
    assert recomputed == record.best
    assert [(row["law"], row["num_columns"]) for row in table[:2]] == [
        ("kernel_discretised", 8),
        ("kernel_discretised", 16),
    ]


def test_a_hopeless_run_returns_the_untrained_model():
    """A learning rate that wrecks the model: what comes back is the start, and it says so."""
    result = pretrain(plan(learning_rate=30.0, num_steps=4, validate_every=2, weight_average=0.0))
    assert not result.record.improved
    assert result.record.best == result.record.untrained
    problem = make_problem(["toeplitz"], 80, 8, noisy_diagonal=True, generator=torch.Generator().manual_seed(3))
    inputs = problem.factor, problem.residual_diagonal, problem.diagonal
    untrained = RangeFormer.untrained(TINY.model)
    assert torch.equal(result.model(*inputs).neighbors, untrained(*inputs).neighbors)


def test_equal_seeds_give_equal_weights():
    first, second = (pretrain(plan(num_steps=2)).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_range_that_got_worse_is_untrained_again(problem):
    """The range head is reset, the neighbours stay as they were trained."""
    model = TINY.build(weights_generator(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    inputs = problem.factor, problem.residual_diagonal, problem.diagonal
    before = model(*inputs)
    assert not TINY.finish(model, {"range": -1.0}, {"range": -1.1})
    assert torch.equal(model(*inputs).range, before.range)
    assert TINY.finish(model, {"range": -1.0}, {"range": -0.9})
    after, untrained = model(*inputs), RangeFormer.untrained(TINY.model)(*inputs)
    assert not torch.equal(before.range, untrained.range)
    torch.testing.assert_close(after.range, untrained.range)
    assert torch.equal(after.neighbors, before.neighbors)


def test_a_batch_comes_from_its_generator_alone():
    first, second, other = (TINY.draw(torch.Generator().manual_seed(seed), 0.5) for seed in (1, 1, 2))
    assert torch.equal(first.problem.residual, second.problem.residual)
    assert (first.num_neighbors, first.num_candidates, first.num_loops) == (
        second.num_neighbors,
        second.num_candidates,
        second.num_loops,
    )
    assert first.problem.laws != other.problem.laws or first.problem.residual.shape != other.problem.residual.shape


def test_small_matrices_first():
    task = dataclasses.replace(TINY, all_sizes_at=0.5)
    early, late = (
        {task.draw(torch.Generator().manual_seed(s), progress).problem.residual.shape[-1] for s in range(12)}
        for progress in (0.1, 0.6)
    )
    assert early == {64}
    assert late == {64, 80}


def test_the_shipped_weights_have_the_figures_on_their_card():
    """The validation matrices are those of the day they were trained.

    Up to the processor's rounding: pivots and neighbours are discrete, and two makes of CPU were seen 0.3 % apart.
    """
    task, card = FeaturesTask(), read_card(SHIPPED["features"])
    figures, _ = task.validate(load(), task.validation_set())
    assert figures == pytest.approx(card["validation"]["trained"], rel=1e-2)


def test_training_and_validation_laws_are_disjoint():
    task = FeaturesTask()
    trained = set(task.training_distributions(kernels=True)) | set(task.training_distributions(kernels=False))
    assert not trained & set(task.validation_laws)


def test_command_line(tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(plan().as_fields()))
    out = tmp_path / "weights.safetensors"
    assert main(["--config", str(config), "--steps", "3", "--out", str(out)]) == 0
    assert "untrained" in capsys.readouterr().out
    card = read_card(out)
    assert card["training"]["run"]["num_steps"] == 3
    assert card["run"]["num_steps"] == 3
    assert card["training_laws"]["kernel"] == list(TINY.training_distributions(kernels=True))
    assert load(out).config == TINY.model
    assert json.loads(out.with_suffix(".history.json").read_text())[0]["step"] == 0
    row = card["validation"]["table"][0]
    assert {"law", "num_columns", "room", "untrained", "trained"} == set(row)
    assert set(row["trained"]) == {"missed", "recall", "range"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sizes": [20]}, "must exceed twice the largest number of candidates"),
        ({"nonsense": 1}, "Unknown fields"),
        ({"validation_laws": ["none"]}, "unknown distributions"),
        ({"validation_laws": []}, "not empty"),
        ({"loops": [3, 1]}, "`loops` must be two numbers, 0 <= least <= largest"),
        ({"batch_size": 0}, "must be positive"),
    ],
)
def test_bad_configurations(tmp_path, capsys, fields, message):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"task": "features", "settings": fields}))
    with pytest.raises(ValueError, match=message):
        Plan.from_file(path)
    with pytest.raises(SystemExit):
        main(["--config", str(path), "--out", str(tmp_path / "w.safetensors")])
    assert message in capsys.readouterr().err
