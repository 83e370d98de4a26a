import math

import pytest
import torch
from helpers import normal, seeded
from sketch_examples import excess, haar, optimum, smooth

from sketching import Gaussian, RangeFormerSketch
from sketching.learning.objective import Target, excess_of, lift_loss, squared_excess
from sketching.sketches.random_features import RandomFeatures


@pytest.mark.parametrize("A", [smooth(), smooth().mT, haar()])
def test_target_knows_what_the_best_approximation_leaves(A):
    target = Target.of(A, 7)
    assert target.total == pytest.approx(float(A.square().sum()))
    assert target.best == pytest.approx(optimum(A, 7) ** 2)


def test_target_of_low_rank_is_approximated_to_rounding_at_best():
    A = normal(20, 3) @ normal(3, 15)
    assert Target.of(A, 5).best == pytest.approx(1e-10 * float(A.square().sum()))


def test_squared_excess_is_that_of_the_truncated_range():
    A, omega = smooth(), normal(120, 12)
    expected = (1 + excess(A, omega, 7)) ** 2 - 1
    assert float(squared_excess(Target.of(A, 7), omega)) == pytest.approx(expected, rel=1e-6)


def test_squared_excess_depends_on_the_space_alone_and_vanishes_at_the_best():
    A, omega = haar(), normal(80, 12)
    target = Target.of(A, 7)
    turned = omega @ normal(12, 12, seed=1)
    assert float(squared_excess(target, turned)) == pytest.approx(float(squared_excess(target, omega)))
    best = torch.linalg.svd(A).Vh[:7].mT
    assert float(squared_excess(target, best)) < 1e-9


def test_gradient_of_squared_excess():
    target = Target.of(haar(20, 12), 3)
    assert torch.autograd.gradcheck(lambda omega: squared_excess(target, omega), normal(12, 5).requires_grad_())


@pytest.mark.parametrize("omega", [torch.zeros(80, 5).double(), torch.ones(80, 5).double()])
def test_squared_excess_of_a_sketch_that_lost_its_rank_is_finite(omega):
    value = squared_excess(Target.of(haar(), 4), omega)
    assert torch.isfinite(value)
    assert value > 0


def test_loss_is_the_excess_of_the_untrained_blend_and_leads_downhill():
    target = Target.of(smooth(), 20)
    random_features = RandomFeatures(generator=seeded())

    def loss():
        return lift_loss(random_features, target, 24, 30, 0.2, seeded())

    first = loss()
    distribution = RangeFormerSketch()
    drawn = excess_of(target, distribution, 30, 24, seeded())
    assert math.exp(first.item()) == pytest.approx((1 + drawn) ** 2 - 1, rel=0.5)
    first.backward()
    with torch.no_grad():
        for parameter in random_features.parameters():
            if parameter.grad is not None:
                parameter -= 0.02 * parameter.grad
    assert loss() < first


def test_excess_of_a_law_as_the_tests_measure_it():
    A = smooth()
    operator_excess = excess_of(Target.of(A, 7), Gaussian(), 12, 24, seeded())
    omega = torch.randn(120, 12, generator=seeded(), dtype=torch.float64)
    assert operator_excess == pytest.approx(excess(A, omega, 7), rel=1e-6)
