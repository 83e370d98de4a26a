"""The call that decides by itself how often to read A, and what it promises."""

import pytest
import torch
from helpers import seeded
from sketch_examples import haar, optimum, smooth

import sketching


def error_of(A, low_rank) -> float:
    U, S, Vh = low_rank
    return float(torch.linalg.matrix_norm(A - (U * S) @ Vh))


def test_auto_reads_again_only_where_it_pays():
    fast, slow, flat = haar(power=4.0), haar(power=1.0), haar(power=0.05)
    passes = [
        sketching.randomized_svd(A, 10, sketch="gaussian", generator=seeded()).num_passes for A in (fast, slow, flat)
    ]
    assert passes[1] > 2
    assert passes[2] <= 3
    for A in (fast, slow, flat):
        low_rank = sketching.randomized_svd(A, 10, sketch="gaussian", generator=seeded())
        assert error_of(A, low_rank) < 1.08 * optimum(A, 10)


@pytest.mark.parametrize("sketch", ["gaussian", "rangeformer"])
def test_more_passes_are_never_worse(sketch):
    A = smooth()
    errors = [
        error_of(A, sketching.randomized_svd(A, 15, num_power_iterations=q, sketch=sketch, generator=seeded()))
        for q in range(4)
    ]
    assert errors == sorted(errors, reverse=True)


def test_looking_first_saves_passes():
    A = smooth(300, 200)
    ours = sketching.randomized_svd(A, 20, num_power_iterations=0, generator=seeded())
    gaussian = sketching.randomized_svd(A, 20, sketch="gaussian", num_power_iterations=0, generator=seeded())
    assert ours.num_passes == gaussian.num_passes == 2
    assert 0 < ours.num_entries <= A.numel() * 80 / 300
    assert error_of(A, ours) / optimum(A, 20) - 1 < 0.2 * (error_of(A, gaussian) / optimum(A, 20) - 1)


@pytest.mark.parametrize("sketch", ["gaussian", "sampled-rows", "rangeformer"])
@pytest.mark.parametrize("num_power_iterations", [0, "auto"])
def test_error_is_estimated_within_half(sketch, num_power_iterations):
    for A in (smooth(), haar(), haar(power=3.0)):
        for seed in range(8):
            low_rank = sketching.randomized_svd(
                A, 10, sketch=sketch, num_power_iterations=num_power_iterations, generator=seeded(seed)
            )
            assert 2 / 3 < low_rank.relative_error * float(A.norm()) / error_of(A, low_rank) < 3 / 2


def test_tolerance_is_met_or_said_not_to_be():
    for A in (smooth(), haar(power=2.0)):
        for tolerance in (0.3, 0.1, 0.03, 1e-3):
            for seed in range(5):
                low_rank = sketching.randomized_svd(A, 12, rtol=tolerance, generator=seeded(seed))
                met = error_of(A, low_rank) <= tolerance * float(A.norm())
                assert met or not low_rank.converged
                assert ("not met" in low_rank.message) != low_rank.converged
    assert sketching.randomized_svd(haar(power=2.0), 12, rtol=0.3).converged
    assert not sketching.randomized_svd(haar(power=2.0), 2, rtol=1e-6).converged


def test_odd_numbers_of_passes_give_orthonormal_factors():
    found = set()
    A = smooth(300, 200)
    for rank in (5, 10, 20, 40):
        U, S, Vh = low_rank = sketching.randomized_svd(A, rank, sketch="gaussian", generator=seeded())
        found.add(low_rank.num_passes % 2)
        torch.testing.assert_close(U.mT @ U, torch.eye(rank, dtype=torch.float64))
        torch.testing.assert_close(Vh @ Vh.mT, torch.eye(rank, dtype=torch.float64))
        torch.testing.assert_close(((U.mT @ A) @ Vh.mT).diagonal(), S)
    assert 1 in found


def test_result_unpacks():
    low_rank = sketching.randomized_svd(smooth(), 3)
    U, S, Vh = low_rank
    assert U is low_rank.U
    assert S is low_rank.S
    assert Vh is low_rank.Vh


def test_the_former_name_of_the_tolerance_still_works():
    A = haar(power=2.0)
    with pytest.warns(DeprecationWarning, match="`tolerance` is now called `rtol`"):
        former = sketching.randomized_svd(A, 12, tolerance=0.3)
    assert former.message == sketching.randomized_svd(A, 12, rtol=0.3).message
    with pytest.warns(DeprecationWarning, match="`tolerance` is now called `rtol`"):
        assert sketching.range_finder(A, tolerance=0.3).Q.equal(sketching.range_finder(A, rtol=0.3).Q)
