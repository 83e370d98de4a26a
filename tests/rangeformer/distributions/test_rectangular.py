"""What sets each rectangular distribution apart."""

import torch

from rangeformer.distributions import RECTANGULAR_DISTRIBUTIONS
from rangeformer.distributions.rectangular import field_with_edges
from tests.helpers import seeded

SEEDS = range(5)


def of(law: str, seed: int, m: int = 60, n: int = 40) -> torch.Tensor:
    return RECTANGULAR_DISTRIBUTIONS[law](m, n, seeded(seed), torch.float64)


def test_smooth_fields_are_smooth_but_for_edges():
    for seed in SEEDS:
        steps = of("smooth_field", seed, 200, 200).diff(dim=0).abs()
        assert steps.median() < 0.5 * of("smooth_field", seed, 200, 200).std()


def test_a_field_does_not_depend_on_its_resolution():
    coarse, fine = (torch.arange(size, dtype=torch.float64) / size for size in (10, 20))
    torch.testing.assert_close(
        field_with_edges(coarse, coarse, seeded()), field_with_edges(fine, fine, seeded())[::2, ::2]
    )


def test_patches_have_mean_zero_and_share_pixels():
    for seed in SEEDS:
        patches = of("image_patches", seed, 100, 36)
        torch.testing.assert_close(patches.mean(1), torch.zeros(100, dtype=torch.float64), atol=1e-12, rtol=0)
        # neighbouring pixels are alike: a few directions hold most of the energy
        values = torch.linalg.svdvals(patches).square()
        assert values[:12].sum() > 0.5 * values.sum()


def test_counts_are_counts_and_follow_zipf():
    for seed in SEEDS:
        counts = of("word_counts", seed, 200, 100)
        assert torch.equal(counts, counts.round())
        assert (counts >= 0).all()
        assert counts[:, :10].sum() > 3 * counts[:, 50:60].sum()


def test_clustered_rows_lie_near_few_points():
    for seed in SEEDS:
        rows = of("clustered_rows", seed, 60, 40)
        distance = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
        nearest = distance.amin(1).median()
        assert nearest <= 1.1 * 2**0.5 * 40**0.5
        assert distance[distance.isfinite()].max() > 40**0.5


def test_low_rank_plus_noise_has_a_gap_or_is_noise():
    ratios = []
    for seed in range(10):
        values = torch.linalg.svdvals(of("low_rank_plus_noise", seed))
        ratios.append(float(values[0] / values[11]))
    assert max(ratios) > 100


def test_haar_decay_is_a_power_law_in_bases_that_do_not_repeat():
    for seed in SEEDS:
        values = torch.linalg.svdvals(of("haar_decay", seed)).log()
        slope = values[1:] / torch.arange(2, 41, dtype=torch.float64).log()
        torch.testing.assert_close(slope, slope[0].expand(39))
        assert -2 <= slope[0] <= -0.3
    left, right = (torch.linalg.svd(of("haar_decay", seed)).U[:, 0] for seed in (0, 1))
    assert abs(left @ right) < 0.5


def test_sparse_rows_have_empty_rows():
    for seed in SEEDS:
        matrix = of("sparse_rows", seed, 200, 50)
        empty = (matrix == 0).all(1).double().mean()
        assert 0.03 < empty < 0.95
        assert (matrix == 0).double().mean() > 0.6


def test_cross_kernels_are_positive_and_of_low_rank():
    for seed in SEEDS:
        matrix = of("cross_kernel", seed)
        assert ((matrix >= 0) & (matrix <= 1)).all()
        values = torch.linalg.svdvals(matrix)
        assert values[0] > 3 * values[10]
