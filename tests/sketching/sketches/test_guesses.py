import pytest
import torch
from helpers import normal, seeded
from sketch_examples import haar, mean_excess, smooth

from sketching.sketches import RangeFormerSketch
from sketching.sketches.candidates import FAMILY_SHARES, LIFT_SHARES, guesses_of, untrained_lift
from sketching.sketches.random_features import Lift, LiftConfig

CPU = torch.device("cpu")


def with_family(family: torch.Tensor) -> Lift:
    """An untrained lift that knows a family."""
    n, k = family.shape
    lift = Lift.untrained(LiftConfig(family_shape=(n, k)))
    lift.family.copy_(family)
    return lift


def disturbed(scale: float) -> Lift:
    """A lift whose corrections are noise."""
    lift = Lift.untrained()
    for last in (lift.channel_gain[-1], lift.knobs[-1], lift.correction):
        for parameter in last.parameters():
            parameter.normal_(0, scale, generator=seeded())
    return lift


def leading(A: torch.Tensor, count: int) -> torch.Tensor:
    _, S, Vh = torch.linalg.svd(A, full_matrices=False)
    return (Vh[:count].mT * S[:count]).float()


def test_the_guess_that_rests_on_least_comes_first():
    assert [guess.lift for guess in guesses_of(untrained_lift(), 9, CPU, few_rows=True)] == [untrained_lift()]
    own = Lift.untrained(LiftConfig(num_waves=9))
    assert [guess.lift for guess in guesses_of(own, 9, CPU, few_rows=True)] == [own]
    trained = disturbed(0.1)
    assert [guess.lift for guess in guesses_of(trained, 9, CPU, few_rows=True)] == [
        untrained_lift(LiftConfig()),
        trained,
    ]
    assert [guess.lift for guess in guesses_of(trained, 9, CPU, few_rows=False)] == [untrained_lift(LiftConfig())]
    known = with_family(normal(9, 2).float())
    guesses = guesses_of(known, 9, CPU, few_rows=True)
    assert [guess.from_family for guess in guesses] == [False, True]
    assert [guess.shares for guess in guesses] == [LIFT_SHARES, FAMILY_SHARES]
    assert not guesses_of(known, 8, CPU, few_rows=True)[-1].from_family


def test_members_remembered_come_last():
    family = normal(9, 2).float()
    lift = Lift.untrained(LiftConfig(family_shape=(9, 2), num_members=1))
    lift.family.copy_(family)
    lift.members.copy_(torch.eye(2).unsqueeze(0))
    guesses = guesses_of(lift, 9, CPU, few_rows=True)
    assert [guess.by_likeness for guess in guesses] == [False, False, True]
    entries = torch.tensor([7, 1, 3, 5])
    unit = (family / family.norm(dim=0)).double()
    for some, chosen in ((None, slice(None)), (entries, entries)):
        features = guesses[-1].features(normal(3, 9)[:, chosen], some, seeded())
        expected = unit[chosen] / unit[chosen].norm()
        torch.testing.assert_close(features @ features.mT, expected @ expected.mT, rtol=1e-6, atol=1e-7)


def test_a_family_is_given_at_some_entries_with_norm_one():
    family = normal(9, 2).float()
    guess = guesses_of(with_family(family), 9, CPU, few_rows=True)[-1]
    whole = guess.features(normal(3, 9), None, seeded())
    torch.testing.assert_close(whole, (family / family.norm()).double(), rtol=1e-6, atol=1e-7)
    entries = torch.tensor([7, 1, 3])
    some = guess.features(normal(3, 3), entries, seeded())
    torch.testing.assert_close(some, (family[entries] / family[entries].norm()).double(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("max_rows", [12, 45])
def test_the_right_family_is_taken_and_a_wrong_one_is_not(max_rows):
    A = haar(120, 80, power=0.7)
    untrained, right, wrong = (
        mean_excess(A, RangeFormerSketch(lift), 15, 20, max_rows=max_rows)
        for lift in (None, with_family(leading(A, 20)), with_family(torch.linalg.qr(normal(80, 20)).Q.float()))
    )
    assert right < 0.2 * untrained
    assert wrong < 1.1 * untrained


@pytest.mark.parametrize("max_rows", [12, 45])
@pytest.mark.parametrize("scale", [0.3, 10.0])
def test_a_lift_trained_to_nonsense_costs_little(max_rows, scale):
    A = smooth()
    untrained, nonsense = (
        mean_excess(A, RangeFormerSketch(lift), 20, 30, max_rows=max_rows) for lift in (None, disturbed(scale))
    )
    assert nonsense < 1.25 * untrained


def test_a_family_of_zeros_is_harmless():
    A = smooth()
    lift = with_family(torch.zeros(120, 4))
    assert mean_excess(A, RangeFormerSketch(lift), 20, 30, max_rows=24) < 1.05 * mean_excess(
        A, RangeFormerSketch(), 20, 30, max_rows=24
    )
