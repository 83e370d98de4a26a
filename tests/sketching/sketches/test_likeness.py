import torch
from helpers import normal

from sketching.sketches.likeness import mixture

N, K = 40, 12


def family(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal directions, and members each of which has its own six of them in front."""
    directions = torch.linalg.qr(normal(N, K)).Q
    members = []
    for k in range(count):
        decay = torch.diag(2.0 ** -torch.arange(K, dtype=torch.float64))
        members.append(torch.eye(K, dtype=torch.float64).roll(4 * k, 0) @ decay)
    return directions, torch.stack(members)


def rows_of(member: torch.Tensor, directions: torch.Tensor, count: int, noise: float = 0.0) -> torch.Tensor:
    return normal(count, K, seed=5) @ member.mT @ directions.mT + noise * normal(count, N, seed=6)


def mixture_naive(rows, directions, members):
    """In the space of the matrix, with projections."""
    weights, laws = [], []
    for member in members:
        factor = directions @ member
        Q = torch.linalg.qr(factor[:, : K // 2]).Q
        weights.append(float((rows - rows @ Q @ Q.mT).square().sum()) ** (-len(rows) / 2))
        laws.append(factor @ factor.mT)
    distribution = sum(weight * part for weight, part in zip(weights, laws, strict=True))
    return distribution / distribution.trace()


def test_equals_the_naive_mixture():
    directions, members = family()
    rows = rows_of(members[1], directions, 4, noise=0.3)
    features = mixture(rows, directions, members, N)
    torch.testing.assert_close(features @ features.mT, mixture_naive(rows, directions, members))


def test_many_rows_of_a_member_leave_that_member_alone():
    directions, members = family()
    for k, member in enumerate(members):
        features = mixture(rows_of(member, directions, 30, noise=0.01), directions, members, N)
        own = directions @ members[k]
        own = own / own.norm()
        torch.testing.assert_close(features @ features.mT, own @ own.mT, rtol=1e-6, atol=1e-8)


def test_rows_that_are_like_no_member_get_the_mean():
    directions, members = family()
    outside = torch.linalg.qr(torch.cat([directions, normal(N, 5, seed=2)], -1)).Q[:, K:].mT
    features = mixture(outside, directions, members, N)
    mean = directions @ torch.einsum("bij,bkj->ik", members, members) @ directions.mT
    torch.testing.assert_close(features @ features.mT, mean / mean.trace())


def test_some_entries_tell_what_all_do():
    directions, members = family()
    rows = rows_of(members[2], directions, 20, noise=0.01)
    entries = torch.arange(0, N, 2)
    whole = mixture(rows, directions, members, N)
    part = mixture(rows[:, entries], directions[entries], members, N)
    expected = whole[entries] / whole[entries].norm()
    torch.testing.assert_close(part @ part.mT, expected @ expected.mT, rtol=1e-4, atol=1e-6)


def test_scale_of_the_rows_does_not_matter_and_zeros_are_no_evidence():
    directions, members = family()
    rows = rows_of(members[1], directions, 4, noise=0.3)
    whole, scaled = (mixture(factor * rows, directions, members, N) for factor in (1.0, 1e-100))
    torch.testing.assert_close(whole @ whole.mT, scaled @ scaled.mT)
    assert torch.isfinite(mixture(0 * rows, directions, members, N)).all()
    members[0, :, 3:] = 0  # a member of lower rank
    assert torch.isfinite(mixture(rows, directions, members, N)).all()
