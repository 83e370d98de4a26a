"""Training the pure member: the loss is what it says, its gradient is that of the window, and it learns."""

import pytest
import torch
from helpers import normal, seeded

from rangeformer.models.pure import PureConfig
from rangeformer.operators import as_operator
from rangeformer.pretrain.seeding import batch_generator, weights_generator
from rangeformer.pretrain.tasks.pure import PureTask, path_loss

TINY = PureTask(
    model=PureConfig(num_loops=5, num_probes=12, hidden=12, small=6),
    sizes=(8, 12),
    batch_size=6,
    loops=(3, 5),
    validation_sizes=(9,),
    validation_members=3,
)


def test_path_loss_of_one_window_is_the_mean_log_of_the_energy_left():
    model = TINY.build(weights_generator(0))
    problems = TINY.draw(seeded(1), 0.0).problems
    found = path_loss(model, problems, 3, 3, seeded(0))
    A, exact = problems.matrix, problems.solution.unsqueeze(-1)
    path = model.solve_path(as_operator(A), problems.rhs.unsqueeze(-1), num_loops=3)

    def energy(x):
        return ((exact - x) * (A @ (exact - x))).sum((-1, -2))

    start = energy(torch.zeros_like(exact))
    expected = torch.stack([(energy(x) / start).log() for x in path]).mean()
    torch.testing.assert_close(found, expected)


def test_gradient_by_finite_differences():
    model = TINY.build(weights_generator(0)).double()
    problems = TINY.draw(seeded(2), 0.0).problems
    loss = path_loss(model, problems, 1, 1, seeded(0))  # one loop: the attention state does not depend on the weights
    bias = model.alpha.linear.bias
    (gradient,) = torch.autograd.grad(loss, bias)
    losses = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            bias.add_(step)
            losses.append(path_loss(model, problems, 1, 1, seeded(0)))
            bias.sub_(step)
    torch.testing.assert_close(gradient.squeeze(), (losses[0] - losses[1]) / 2e-5, rtol=1e-5, atol=1e-8)


def test_learns():
    model = TINY.build(weights_generator(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    cases = TINY.validation_set()
    before, _ = TINY.validate(model, cases)
    for step in range(60):
        loss, parts = TINY.loss(model, TINY.draw(batch_generator(0, step, 0, torch.device("cpu")), 0.0))
        assert set(parts) == {"path", "eigenvalues", "logdet"}
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    after, table = TINY.validate(model, cases)
    assert after["error"] < 0.8 * before["error"]
    assert after["solve"] < before["solve"]
    assert {row["law"] for row in table} == set(TINY.validation_laws)


def test_a_batch_depends_on_its_generator_alone():
    first, second = (TINY.draw(seeded(5), 0.3) for _ in range(2))
    assert torch.equal(first.problems.matrix, second.problems.matrix)
    assert (first.num_loops, first.window) == (second.num_loops, second.window)
    assert not torch.equal(first.problems.rhs, normal(*first.problems.rhs.shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"laws": ("nonsense",)}, "Unknown: .'nonsense'."),
        ({"validation_laws": PureTask().laws[:1]}, "must be other distributions"),
        ({"sizes": (1,)}, "sizes of at least 2"),
        ({"loops": (5, 3)}, "`loops` must be two numbers"),
        ({"windows": (0, 3)}, "`windows` must be two numbers"),
        ({"batch_size": 0}, "must be positive"),
    ],
)
def test_impossible_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        PureTask(**fields)
