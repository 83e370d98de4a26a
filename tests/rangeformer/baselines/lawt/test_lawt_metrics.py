"""Errors by hand, what they hide, and the ceiling that rounding sets."""

import pytest
import torch
from helpers import normal, seeded

from rangeformer.baselines.lawt import TASKS, Scores, Source, answer, draw_problems, rounding_ceiling
from rangeformer.baselines.lawt.metrics import checks, errors, trivial_answers

SHAPE = (4, 4)
HIDING = ("eigenvectors", "svd", "inversion")


def case(task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and exact answers."""
    [group] = draw_problems(Source(tasks=(task,), rows=(4, 4)), 20, seeded())
    return group.input, group.output


@pytest.mark.parametrize("task", TASKS)
def test_exact_answers_have_no_error_and_malformed_ones_are_infinitely_wrong(task):
    read, target = case(task)
    assert errors(task, target, target, read, SHAPE).max() < 1e-10
    malformed = torch.full_like(target, torch.nan)
    assert (errors(task, malformed, target, read, SHAPE) == torch.inf).all()
    found = checks(task, target, target, read, SHAPE)
    assert bool(found) == (task in HIDING)
    assert all(values.max() < 1e-10 for name, values in found.items() if name != "condition")
    for name, values in checks(task, malformed, target, read, SHAPE).items():
        assert name == "condition" or (values == torch.inf).all()


@pytest.mark.parametrize("task", [task for task in TASKS if task not in HIDING])
def test_relative_error_in_the_entrywise_one_norm(task):
    read, target = case(task)
    wrong = target.clone()
    wrong[:, 0, 0] += 1.0
    expected = 1 / target.abs().sum((1, 2))
    torch.testing.assert_close(errors(task, wrong, target, read, SHAPE), expected)
    torch.testing.assert_close(errors(task, 1.03 * target, target, read, SHAPE), torch.full((20,), 0.03).double())


def test_errors_of_the_other_tasks_by_hand():
    read = torch.diag(torch.tensor([1.0, 2.0])).double().unsqueeze(0)
    inverse = torch.tensor([[[1.0, 0.1], [0.0, 0.5]]]).double()
    assert errors("inversion", inverse, inverse, read, (2, 2)).item() == pytest.approx(0.1 / 2)
    pairs = torch.tensor([[[1.0, 3.0], [1.0, 0.0], [0.0, 1.0]]]).double()
    assert errors("eigenvectors", pairs, pairs, read, (2, 2)).item() == pytest.approx(1 / 4)
    parts = torch.tensor([[[2.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.5]]]).double()
    assert errors("svd", parts, parts, read, (2, 2)).item() == pytest.approx(1.0 / 3)


@pytest.mark.parametrize("task", ["eigenvectors", "svd"])
def test_signs_are_forgiven(task):
    read, target = case(task)
    flipped = target.clone()
    flipped[:, 1:, 0] *= -1
    assert errors(task, flipped, target, read, SHAPE).max() < 1e-10


@pytest.mark.parametrize("name", ["zero", "one pair", "congruence"])
def test_the_papers_error_accepts_what_the_checks_do_not(name):
    read, target = case("eigenvectors")
    trivial = trivial_answers("eigenvectors", read)[name]
    assert errors("eigenvectors", trivial, target, read, SHAPE).max() < 1e-6
    found = checks("eigenvectors", trivial, target, read, SHAPE)
    assert found["orthogonality"].min() > 0.05
    if name != "congruence":
        assert found["values"].min() > 0.3


def test_trivial_answers_of_the_other_tasks():
    read, target = case("svd")
    for name, trivial in trivial_answers("svd", read).items():
        assert errors("svd", trivial, target, read, SHAPE).max() < 1e-6, name
        assert checks("svd", trivial, target, read, SHAPE)["orthogonality"].min() > 0.05
    read, target = case("eigenvalues")
    trivial = trivial_answers("eigenvalues", read)
    assert (errors("eigenvalues", trivial["zero"], target, read, SHAPE) == 1).all()
    assert errors("eigenvalues", trivial["mean"], target, read, SHAPE).median() < 1
    with pytest.raises(ValueError, match="one with eigenvalues or singular values"):
        trivial_answers("addition", read)


def test_rounding_ceilings_of_the_inverse():
    found = rounding_ceiling("inversion", 5, encodings=("FP15", "P1000"))
    shares = [found.right(tolerance) for tolerance in (0.05, 0.02, 0.01, 0.005)]
    assert shares == pytest.approx([0.918, 0.850, 0.600, 0.223], abs=0.015)
    finer = rounding_ceiling("inversion", 5, digits=5, count=2000)
    assert finer.right(0.005) > 0.98
    # what the ceiling alone produces: failures are the ill-conditioned matrices, and the inverse is not far off
    condition = found.checks["condition"]
    failed = found.error >= 0.05
    assert condition[failed].median() > 10 * condition[~failed].median()
    assert (found.checks["distance"] == 0).all()


@pytest.mark.parametrize("task", [task for task in TASKS if task != "inversion"])
@pytest.mark.parametrize("encoding", ["P10", "FP15"])
def test_rounding_does_not_hurt_the_other_tasks(task, encoding):
    assert rounding_ceiling(task, 5, encodings=(encoding, encoding), count=500).right(0.01) > 0.995


def test_ceiling_is_of_an_encoding_or_of_digits():
    with pytest.raises(ValueError, match="exclude each other"):
        rounding_ceiling("addition", 2, encodings=("P10", "P10"), digits=3)


def test_figures_of_scores():
    error = torch.tensor([0.001, 0.03, 0.5, torch.inf], dtype=torch.float64)
    exact = torch.tensor([False, False, True, False])
    scores = Scores(error, exact, torch.tensor([True, True, True, False]), {})
    figures = scores.figures()
    assert figures["right_0.05"] == 0.5
    assert figures["right_0.02"] == 0.25
    assert (figures["exact"], figures["malformed"]) == (0.25, 0.25)
    assert scores.right(0.05, short_cut=True) == 0.75
    assert figures["median_error"] == 0.03
    assert Scores.of_many([scores, scores]).figures() == figures | {"tail_error": torch.inf}


def test_errors_are_invariant_under_permutation_of_an_eigenbasis():
    S = normal(5, 4, 4)
    S = S + S.mT
    pairs = answer("eigenvectors", S)
    wrong = pairs + 0.01 * normal(5, 5, 4, seed=3)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(
        errors("eigenvectors", wrong[..., order], pairs, S, SHAPE), errors("eigenvectors", wrong, pairs, S, SHAPE)
    )
