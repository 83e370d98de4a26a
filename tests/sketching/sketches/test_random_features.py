import math

import pytest
import torch
from helpers import normal, seeded
from sketch_examples import smooth

from sketching.sketches.random_features import RandomFeatures, RandomFeaturesConfig, describe


def kernel_naive(rows: torch.Tensor, bandwidths, typical: float) -> torch.Tensor:
    """The kernel of the module docstring, entry by entry."""
    n = rows.shape[1]
    K = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            distance = float((rows[:, i] - rows[:, j]).square().sum())
            value = sum(math.exp(-distance / (2 * b * typical)) for b in bandwidths) / len(bandwidths)
            K[i, j] = float(rows[:, i].norm() * rows[:, j].norm()) * value
    return K / K.trace()


def test_untrained_features_are_the_kernel():
    rows = smooth(8, 25)
    config = RandomFeaturesConfig(num_waves=30000)
    features = RandomFeatures.untrained(config)(rows, generator=seeded()).features
    typical = float(torch.cdist(rows.mT, rows.mT).square().flatten().median())
    torch.testing.assert_close(
        features @ features.mT, kernel_naive(rows, config.bandwidths, typical), atol=4e-3, rtol=0.1
    )


def test_features_do_not_know_scale_or_signs_of_rows():
    rows, random_features = normal(8, 25) ** 3, RandomFeatures.untrained()
    expected = random_features(rows, generator=seeded()).features
    for other in (1e-3 * rows, rows * torch.tensor([1.0, -1, 1, 1, -1, -1, 1, 1]).double().unsqueeze(-1), rows.flip(0)):
        torch.testing.assert_close(random_features(other, generator=seeded()).features, expected, rtol=1e-6, atol=1e-7)


def test_untrained_corrections_are_zero_and_the_loop_is_not_run(monkeypatch):
    random_features = RandomFeatures.untrained()
    monkeypatch.setattr(random_features.block, "forward", None)
    proposal = random_features(smooth(8, 25))
    assert proposal.log_share == 0
    assert proposal.features.shape[-1] == random_features.config.num_waves


def test_every_weight_that_matters_gets_a_gradient():
    random_features = RandomFeatures(generator=seeded())
    with torch.no_grad():
        for last in (random_features.channel_gain[-1], random_features.knobs[-1], random_features.correction):
            for parameter in last.parameters():
                parameter.normal_(0, 0.1, generator=seeded())
    proposal = random_features(smooth(8, 25), generator=seeded())
    target = normal(25, 1)
    ((proposal.features.mT @ target).square().sum() + proposal.log_share).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in random_features.parameters())
    assert all(
        p.grad is not None and p.grad.any() for name, p in random_features.named_parameters() if name.endswith("weight")
    )


def test_trained_corrections_change_the_features():
    random_features = RandomFeatures(generator=seeded())
    rows = smooth(8, 25)
    before = random_features(rows, generator=seeded()).features
    with torch.no_grad():
        random_features.correction.weight.fill_(0.1)
    assert not torch.allclose(before, random_features(rows, generator=seeded()).features)


def test_constant_and_zero_rows_are_described_by_finite_numbers():
    for rows in (torch.ones(5, 9).double(), torch.zeros(5, 9).double(), torch.eye(1, 9).double()):
        _, size, sights = describe(rows, 4)
        assert torch.isfinite(size).all()
        assert torch.isfinite(sights).all()
        assert torch.isfinite(RandomFeatures.untrained()(rows).features).all()


def test_configuration_round_trip_and_bad_value():
    assert RandomFeaturesConfig.from_fields({"bandwidths": [0.1, 0.2], "num_waves": 8}).bandwidths == (0.1, 0.2)
    with pytest.raises(ValueError, match="`num_waves` .* must be a multiple"):
        RandomFeatures(RandomFeaturesConfig(num_waves=10))
