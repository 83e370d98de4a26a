"""The task that trains the paper's model: its answers, its loss, its figures, and what it refuses."""

import dataclasses

import pytest
import torch
from helpers import seeded

from rangeformer.baselines import PaperConfig, PaperRangeFormer
from rangeformer.baselines.config import OPERATIONS
from rangeformer.distributions import PAPER_DISTRIBUTIONS
from rangeformer.pretrain.operations import draw_operations
from rangeformer.pretrain.plan import Plan
from rangeformer.pretrain.tasks.paper import PaperTask, exact_answer, relative_error
from rangeformer.pretrain.trainer import pretrain

MODEL = {"n_max": 12, "channels": 8, "num_heads": 2, "num_loops": 2, "mlp_factor": 2}
SMALL = {"sizes": (5, 8), "validation_sizes": (6,), "batch_size": 4, "validation_members": 2}


def small(**changes) -> PaperTask:
    model = PaperConfig(**{**MODEL, "operation": changes.pop("operation", "solve"), **changes.pop("model", {})})
    return PaperTask(model=model, **{**SMALL, **changes})


class Exact(torch.nn.Module):
    """Says the exact answer times a factor."""

    def __init__(self, operation: str, factor: float):
        super().__init__()
        self.operation, self.factor = operation, torch.nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, matrix, rhs, **options):
        A = matrix.double()
        answers = {
            "solve": lambda: torch.linalg.solve(A, rhs.double()),
            "eigenvalues": lambda: torch.linalg.eigvalsh(A),
            "logdet": lambda: torch.linalg.slogdet(A).logabsdet,
            "largest_eigenvalue": lambda: torch.linalg.eigvalsh(A)[:, -1],
            "trace": lambda: A.diagonal(dim1=-2, dim2=-1).sum(-1),
            "inverse": lambda: torch.linalg.inv(A),
        }
        return self.factor * answers[self.operation]()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_model_that_is_right_has_no_loss_and_no_error(operation):
    task = small(operation=operation)
    batch = task.draw(seeded(), 0.0)
    figures, table = task.validate(Exact(operation, 1.0), task.validation_set())
    # the loss is taken of the float32 matrix
    assert task.loss(Exact(operation, 1.0), batch)[0] < 1e-2 * task.loss(Exact(operation, 0.0), batch)[0]
    assert figures["other"] < 1e-9
    assert figures["seen"] < 1e-9
    halved, _ = task.validate(Exact(operation, 0.5), task.validation_set())
    assert halved == pytest.approx({"other": 0.5, "seen": 0.5})
    assert {row["law"] for row in table if row["laws"] == "other"} == set(task.validation_laws)
    assert {row["law"] for row in table if row["laws"] == "seen"} <= set(task.laws)


def test_losses_by_hand():
    batch = small().draw(seeded(), 0.0)
    zero = Exact("solve", 0.0)
    assert small().loss(zero, batch)[0].item() == pytest.approx(1.0)
    plain, _ = small(relative_loss=False).loss(zero, batch)
    assert plain.item() == pytest.approx(batch.problems.solution.abs().mean().item(), rel=1e-5)
    inverse = small(operation="inverse", relative_loss=False)
    batch = inverse.draw(seeded(), 0.0)
    eigenvalues = 1 / batch.problems.eigenvalues  # of an SPD matrix the nuclear norm is the trace
    assert inverse.loss(Exact("inverse", 0.0), batch)[0].item() == pytest.approx(eigenvalues.mean().item(), rel=1e-3)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradients_are_finite(operation):
    task = small(operation=operation)
    model = task.build(seeded())
    task.loss(model, task.draw(seeded(), 0.5))[0].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert sum(p.grad.abs().sum() for p in model.parameters() if p.grad is not None) > 0


def test_a_batch_comes_from_its_generator_alone():
    task = small(loops=(1, 4))
    before = torch.random.get_rng_state()
    first, second = (task.draw(seeded(3), progress) for progress in (0.0, 0.9))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.problems.matrix, second.problems.matrix)
    assert (first.num_loops, first.seed) == (second.num_loops, second.seed)
    loops = {task.draw(seeded(s), 0.0).num_loops for s in range(30)}
    assert loops == {1, 2, 3, 4}
    assert {task.draw(seeded(s), 0.0).answer.shape[-1] for s in range(10)} == {5, 8}


def test_randomised_form_meets_another_omega_in_every_batch():
    task = small(model={"embedding": "randomised"})
    model, batch = task.build(seeded()), task.draw(seeded(1), 0.0)
    loss = task.loss(model, batch)[0]
    assert task.loss(model, batch)[0] == loss
    assert task.loss(model, dataclasses.replace(batch, seed=batch.seed + 1))[0] != loss


def test_relative_error_is_in_the_entrywise_one_norm():
    exact = torch.tensor([[[1.0, -1.0], [0.0, 2.0]]])
    assert relative_error(exact + torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), exact).tolist() == [0.5]
    assert relative_error(torch.tensor([3.0]), torch.tensor([-2.0])).tolist() == [2.5]


def test_exact_answers():
    problems = draw_operations(["wishart"], 6, 3, generator=seeded())
    identity = exact_answer(problems, "inverse") @ problems.matrix
    torch.testing.assert_close(identity, torch.eye(6, dtype=torch.float64).expand(3, 6, 6), atol=1e-8, rtol=0)
    torch.testing.assert_close(exact_answer(problems, "trace"), problems.eigenvalues.sum(-1))
    assert torch.equal(exact_answer(problems, "largest_eigenvalue"), problems.eigenvalues[:, -1])


def test_trains_from_a_configuration_of_plain_values():
    plan = Plan.from_fields(
        {
            "task": "paper",
            "settings": {
                "model": {**MODEL, "operation": "trace", "answer_scale": 10.0},
                "sizes": [5, 8],
                "validation_sizes": [6],
                "batch_size": 8,
                "validation_members": 4,
            },
            "run": {"num_steps": 100, "validate_every": 50, "learning_rate": 5e-3, "weight_average": 0.9},
        }
    )
    result = pretrain(plan)
    assert isinstance(result.model, PaperRangeFormer)
    assert result.record.best["other"] < 0.7 * result.record.untrained["other"]
    assert Plan.from_fields(plan.as_fields()) == plan


@pytest.mark.parametrize("operation", ["solve", "eigenvalues", "logdet", "inverse"])
def test_shipped_configurations_ask_for_what_their_names_say(operation):
    plan = Plan.from_file(f"paper-{operation}")
    assert isinstance(plan.task, PaperTask)
    assert plan.task.model.operation == operation
    assert plan.task.laws == PAPER_DISTRIBUTIONS
    assert plan.run.max_minutes is None  # by steps, so that the weights do not depend on what else the machine does
    assert plan.run.weight_decay == 0  # plain Adam


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"laws": ("nonsense",)}, "Unknown: .'nonsense'"),
        ({"laws": ()}, "must each name some of"),
        ({"laws": ("wishart", "low_rank"), "validation_laws": ("wishart",)}, "In both: .'wishart'"),
        ({"sizes": (1,)}, "sizes of at least 2"),
        ({"sizes": (13,)}, "must not exceed the model's n_max = 12. Got 13"),
        ({"batch_size": 0}, "must be positive"),
        ({"loops": (3, 2)}, "least <= largest"),
        ({"loops": (1, 2), "model": {"looped": False}}, "of a looped model"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_mixed_precision_is_safe_here():
    """What `mixed_precision` claims: under autocast to bfloat16 the gradient points where the exact one does."""
    task = PaperTask(batch_size=8)
    gradients = []
    for autocast in (False, True):
        model = task.build(torch.Generator().manual_seed(0)).requires_grad_(True)
        if autocast:
            model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
        loss, _ = task.loss(model, task.draw(torch.Generator().manual_seed(1), 0.5))
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert not torch.equal(*gradients)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999
