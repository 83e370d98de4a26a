import math

import pytest
import torch
from helpers import normal, seeded
from sketch_examples import smooth

from sketching.sketches.random_features import Lift, LiftConfig, describe


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
    config = LiftConfig(num_waves=30000)
    features = Lift.untrained(config)(rows, generator=seeded()).features
    typical = float(torch.cdist(rows.mT, rows.mT).square().flatten().median())
    torch.testing.assert_close(
        features @ features.mT, kernel_naive(rows, config.bandwidths, typical), atol=4e-3, rtol=0.1
    )


def test_features_do_not_know_scale_or_signs_of_rows():
    rows, lift = normal(8, 25) ** 3, Lift.untrained()
    expected = lift(rows, generator=seeded()).features
    for other in (1e-3 * rows, rows * torch.tensor([1.0, -1, 1, 1, -1, -1, 1, 1]).double().unsqueeze(-1), rows.flip(0)):
        torch.testing.assert_close(lift(other, generator=seeded()).features, expected, rtol=1e-6, atol=1e-7)


def test_untrained_corrections_are_zero_and_the_loop_is_not_run(monkeypatch):
    lift = Lift.untrained()
    monkeypatch.setattr(lift.block, "forward", None)
    proposal = lift(smooth(8, 25))
    assert proposal.log_share == 0
    assert proposal.features.shape[-1] == lift.config.num_waves


def test_every_weight_that_matters_gets_a_gradient():
    lift = Lift(generator=seeded())
    with torch.no_grad():
        for last in (lift.channel_gain[-1], lift.knobs[-1], lift.correction):
            for parameter in last.parameters():
                parameter.normal_(0, 0.1, generator=seeded())
    proposal = lift(smooth(8, 25), generator=seeded())
    target = normal(25, 1)
    ((proposal.features.mT @ target).square().sum() + proposal.log_share).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in lift.parameters())
    assert all(p.grad is not None and p.grad.any() for name, p in lift.named_parameters() if name.endswith("weight"))


def test_trained_corrections_change_the_features():
    lift = Lift(generator=seeded())
    rows = smooth(8, 25)
    before = lift(rows, generator=seeded()).features
    with torch.no_grad():
        lift.correction.weight.fill_(0.1)
    assert not torch.allclose(before, lift(rows, generator=seeded()).features)


def test_constant_and_zero_rows_are_described_by_finite_numbers():
    for rows in (torch.ones(5, 9).double(), torch.zeros(5, 9).double(), torch.eye(1, 9).double()):
        _, size, sights = describe(rows, 4)
        assert torch.isfinite(size).all()
        assert torch.isfinite(sights).all()
        assert torch.isfinite(Lift.untrained()(rows).features).all()


def test_configuration_round_trip_and_bad_value():
    assert LiftConfig.from_fields({"bandwidths": [0.1, 0.2], "num_waves": 8}).bandwidths == (0.1, 0.2)
    with pytest.raises(ValueError, match="`num_waves` .* must be a multiple"):
        Lift(LiftConfig(num_waves=10))
