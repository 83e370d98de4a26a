import copy

import pytest
import scipy.sparse
import torch
from helpers import normal, seeded
from sketch_examples import haar, mean_excess, smooth

import rangeformer as rf
import sketching
from rangeformer.models.checkpoint import save
from sketching import RandomFeatures, RandomFeaturesConfig, RangeFormerSketch, finetune
from sketching.learning.finetuning import known_family

SMALL = RandomFeaturesConfig(channels=8, num_heads=2, num_waves=24, num_learned=4)


def family(count: int, *, m: int = 60, n: int = 50, seed: int = 0) -> list[torch.Tensor]:
    """Matrices whose rows share a basis with decaying weights, each a little off."""
    Q = torch.linalg.qr(normal(n, n, seed=9)).Q
    decay = torch.arange(1, n + 1, dtype=torch.float64) ** -0.7
    return [(normal(m, n, seed=seed + k) * decay) @ Q.mT for k in range(count)]


def same(first: RandomFeatures, second: RandomFeatures) -> bool:
    return first.config == second.config and all(
        torch.equal(second.state_dict()[name], value) for name, value in first.state_dict().items()
    )


def test_common_space_halves_the_excess_on_other_members():
    said = []
    random_features = finetune(None, family(6), 8, max_rows=16, num_steps=0, report=said.append, generator=seeded())
    assert random_features.knows_family(50)
    assert random_features.family.shape == (50, 36)
    assert [message["step"] for message in said] == [0, 0, 0]
    assert said[-1]["ratio"] < 0.7
    untrained, tuned = (
        sum(mean_excess(A, RangeFormerSketch(which), 8, 18, max_rows=16, seeds=2) for A in family(3, seed=50))
        for which in (None, random_features)
    )
    assert tuned < 0.7 * untrained


def test_members_like_the_rows_read_count_for_more():
    # two kinds of members in one family: their mean is right for neither
    bases = [torch.linalg.qr(normal(50, 50, seed=seed)).Q for seed in (8, 9)]
    decay = torch.arange(1, 51, dtype=torch.float64) ** -1.0
    members = [(normal(60, 50, seed=k) * decay) @ bases[k % 2].mT for k in range(16)]
    random_features = finetune(None, members[:12], 8, max_rows=12, num_steps=0, generator=seeded())
    assert random_features.members.shape == (9, 36, 36)
    mean = known_family(random_features, random_features.family, random_features.members[:0])
    one, other = (
        sum(mean_excess(A, RangeFormerSketch(which), 8, 18, max_rows=12, seeds=2) for A in members[12:])
        for which in (random_features, mean)
    )
    assert one < 0.8 * other


def test_gradient_steps_alone_for_members_of_different_sizes():
    members = [smooth(50 + 4 * k, 60 + 3 * k) for k in range(5)]
    said = []
    random_features = finetune(
        RandomFeatures.untrained(SMALL), members, 8, max_rows=12, num_steps=40, learning_rate=1e-2, report=said.append
    )
    assert random_features.family.numel() == 0
    assert [message["step"] for message in said] == [0, 20, 40]
    best = min(message["ratio"] for message in said)
    assert random_features.is_trained() == (best < 1)
    assert all("loss" in message for message in said[1:])


def test_never_worse_than_the_start_and_the_start_is_left_alone():
    start = RandomFeatures.untrained(SMALL)
    before = copy.deepcopy(start)
    # members with nothing in common, steps much too long
    members = [haar(60, 40, power=0.1).flip(0) @ torch.linalg.qr(normal(40, 40, seed=k)).Q for k in range(4)]
    said = []
    random_features = finetune(start, members, 6, max_rows=12, num_steps=20, learning_rate=10.0, report=said.append)
    assert same(start, before)
    assert min(message["ratio"] for message in said) <= 1
    if all(message["ratio"] >= 1 for message in said[1:]):
        assert same(random_features, start)
    assert not any(parameter.requires_grad for parameter in random_features.parameters())


def test_stops_early_where_nothing_is_gained():
    said = []
    finetune(
        RandomFeatures.untrained(SMALL),
        family(3),
        5,
        max_rows=12,
        num_steps=1000,
        learning_rate=1e-9,
        report=said.append,
    )
    assert said[-1]["step"] <= 120  # chance may look like a gain once or twice


def test_same_generator_same_lift_and_the_global_one_is_left_alone():
    state = torch.random.get_rng_state()
    options = {"max_rows": 12, "num_steps": 20, "learning_rate": 1e-2}
    first, again = (
        finetune(RandomFeatures.untrained(SMALL), family(3), 5, generator=seeded(4), **options) for _ in range(2)
    )
    assert same(first, again)
    assert torch.equal(state, torch.random.get_rng_state())


def test_scale_of_a_member_does_not_matter():
    members = family(4)
    scaled = [members[0] * 1e150, members[1] * 1e-150, members[2], -members[3]]
    first, second = (finetune(None, some, 5, max_rows=12, num_steps=0) for some in (members, scaled))
    torch.testing.assert_close(first.family @ first.family.mT, second.family @ second.family.mT, rtol=1e-4, atol=1e-5)


def test_members_of_any_kind():
    kinds = [scipy.sparse.csr_array(family(1)[0].numpy()), family(2)[1].numpy(), family(3)[2].float()]
    assert finetune(None, kinds, 5, max_rows=12, num_steps=0).knows_family(50)


def test_saved_and_loaded(tmp_path):
    random_features = finetune(RandomFeatures.untrained(SMALL), family(4), 5, max_rows=12, num_steps=0)
    path = tmp_path / "family.safetensors"
    save(random_features, path)
    loaded = rf.load(path)
    assert isinstance(loaded, RandomFeatures)
    assert same(loaded, random_features)
    A = family(1, seed=70)[0]
    first, second = (
        sketching.randomized_svd(A, 5, sketch=RangeFormerSketch(which), generator=seeded())
        for which in (random_features, loaded)
    )
    assert torch.equal(first.U, second.U)


def test_another_family_takes_the_place_of_the_first():
    first = finetune(RandomFeatures.untrained(SMALL), family(4), 5, max_rows=12, num_steps=0)
    other = [A[:, :40] for A in family(4, seed=30)]
    assert finetune(first, other, 5, max_rows=12, num_steps=0).family.shape[0] == 40


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "weights"}, TypeError, "`model` must be a sketching.RandomFeatures or None. Got str"),
        ({"matrices": torch.zeros(3, 4, 5)}, TypeError, "`matrices` must be a list .* Got Tensor; list a batch's"),
        ({"matrices": family(1)}, ValueError, "`matrices` must be at least two, .* Got 1"),
        ({"matrices": [*family(1), torch.zeros(9, 50)]}, ValueError, "must not be zero. Got zeros alone in number 1"),
        ({"matrices": [torch.full((9, 50), torch.nan), *family(1)]}, ValueError, "must be finite"),
        ({"rank": 51}, ValueError, "`rank` must be at most"),
        ({"num_steps": -1}, ValueError, "`num_steps` must be an integer >= 0"),
        ({"num_oversamples": -1}, ValueError, "`num_oversamples` must be an integer >= 0"),
        ({"learning_rate": 0.0}, ValueError, r"`learning_rate` must be in \(0, inf\). Got 0.0"),
        ({"validation_share": 1.0}, ValueError, r"`validation_share` must be in \(0, 1.0\). Got 1.0"),
        ({"max_rows": 31}, ValueError, "`max_rows` must be at most half"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {"model": None, "matrices": family(2), "rank": 5, **change}
    with pytest.raises(error, match=message):
        finetune(arguments.pop("model"), arguments.pop("matrices"), arguments.pop("rank"), **arguments)
