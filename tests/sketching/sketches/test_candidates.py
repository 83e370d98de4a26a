import pytest
import torch
from helpers import normal, seeded
from sketch_examples import haar, mean_excess, smooth

from sketching.sketches import RangeFormerSketch
from sketching.sketches.candidates import FAMILY_SHARES, LIFT_SHARES, candidates_of, untrained_random_features
from sketching.sketches.random_features import RandomFeatures, RandomFeaturesConfig

CPU = torch.device("cpu")


def with_family(family: torch.Tensor) -> RandomFeatures:
    """An untrained random features that knows a family."""
    n, k = family.shape
    random_features = RandomFeatures.untrained(RandomFeaturesConfig(family_shape=(n, k)))
    random_features.family.copy_(family)
    return random_features


def disturbed(scale: float) -> RandomFeatures:
    """random features whose corrections are noise."""
    random_features = RandomFeatures.untrained()
    for last in (random_features.channel_gain[-1], random_features.knobs[-1], random_features.correction):
        for parameter in last.parameters():
            parameter.normal_(0, scale, generator=seeded())
    return random_features


def leading(A: torch.Tensor, count: int) -> torch.Tensor:
    _, S, Vh = torch.linalg.svd(A, full_matrices=False)
    return (Vh[:count].mT * S[:count]).float()


def test_the_guess_that_rests_on_least_comes_first():
    assert [
        candidate.random_features for candidate in candidates_of(untrained_random_features(), 9, CPU, few_rows=True)
    ] == [untrained_random_features()]
    own = RandomFeatures.untrained(RandomFeaturesConfig(num_waves=9))
    assert [candidate.random_features for candidate in candidates_of(own, 9, CPU, few_rows=True)] == [own]
    trained = disturbed(0.1)
    assert [candidate.random_features for candidate in candidates_of(trained, 9, CPU, few_rows=True)] == [
        untrained_random_features(RandomFeaturesConfig()),
        trained,
    ]
    assert [candidate.random_features for candidate in candidates_of(trained, 9, CPU, few_rows=False)] == [
        untrained_random_features(RandomFeaturesConfig())
    ]
    known = with_family(normal(9, 2).float())
    candidates = candidates_of(known, 9, CPU, few_rows=True)
    assert [candidate.from_family for candidate in candidates] == [False, True]
    assert [candidate.shares for candidate in candidates] == [LIFT_SHARES, FAMILY_SHARES]
    assert not candidates_of(known, 8, CPU, few_rows=True)[-1].from_family


def test_members_remembered_come_last():
    family = normal(9, 2).float()
    random_features = RandomFeatures.untrained(RandomFeaturesConfig(family_shape=(9, 2), num_members=1))
    random_features.family.copy_(family)
    random_features.members.copy_(torch.eye(2).unsqueeze(0))
    candidates = candidates_of(random_features, 9, CPU, few_rows=True)
    assert [candidate.by_likeness for candidate in candidates] == [False, False, True]
    entries = torch.tensor([7, 1, 3, 5])
    unit = (family / family.norm(dim=0)).double()
    for some, chosen in ((None, slice(None)), (entries, entries)):
        features = candidates[-1].features(normal(3, 9)[:, chosen], some, seeded())
        expected = unit[chosen] / unit[chosen].norm()
        torch.testing.assert_close(features @ features.mT, expected @ expected.mT, rtol=1e-6, atol=1e-7)


def test_a_family_is_given_at_some_entries_with_norm_one():
    family = normal(9, 2).float()
    candidate = candidates_of(with_family(family), 9, CPU, few_rows=True)[-1]
    whole = candidate.features(normal(3, 9), None, seeded())
    torch.testing.assert_close(whole, (family / family.norm()).double(), rtol=1e-6, atol=1e-7)
    entries = torch.tensor([7, 1, 3])
    some = candidate.features(normal(3, 3), entries, seeded())
    torch.testing.assert_close(some, (family[entries] / family[entries].norm()).double(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("max_rows", [12, 45])
def test_the_right_family_is_taken_and_a_wrong_one_is_not(max_rows):
    A = haar(120, 80, power=0.7)
    untrained, right, wrong = (
        mean_excess(A, RangeFormerSketch(random_features), 15, 20, max_rows=max_rows)
        for random_features in (
            None,
            with_family(leading(A, 20)),
            with_family(torch.linalg.qr(normal(80, 20)).Q.float()),
        )
    )
    assert right < 0.2 * untrained
    assert wrong < 1.1 * untrained


@pytest.mark.parametrize("max_rows", [12, 45])
@pytest.mark.parametrize("scale", [0.3, 10.0])
def test_a_lift_trained_to_nonsense_costs_little(max_rows, scale):
    A = smooth()
    untrained, nonsense = (
        mean_excess(A, RangeFormerSketch(random_features), 20, 30, max_rows=max_rows)
        for random_features in (None, disturbed(scale))
    )
    assert nonsense < 1.25 * untrained


def test_a_family_of_zeros_is_harmless():
    A = smooth()
    random_features = with_family(torch.zeros(120, 4))
    assert mean_excess(A, RangeFormerSketch(random_features), 20, 30, max_rows=24) < 1.05 * mean_excess(
        A, RangeFormerSketch(), 20, 30, max_rows=24
    )
