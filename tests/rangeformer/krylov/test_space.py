"""The growing space: orthonormal whatever it is given, and its projections are the best it holds."""

import pytest
import torch
from helpers import conditioned, normal, seeded

from rangeformer.krylov.search_space import SearchSpace
from rangeformer.operators import as_operator


def grown(A: torch.Tensor, start: torch.Tensor, num_loops: int, **options) -> SearchSpace:
    space = SearchSpace(as_operator(A), generator=seeded(), **options)
    space.expand(start)
    for _ in range(num_loops - 1):
        space.expand(space.reached())
    return space


def assert_orthonormal(V: torch.Tensor, factor: float = 10) -> None:
    gap = (V.mT @ V - torch.eye(V.shape[-1], dtype=V.dtype)).abs().max()
    assert gap <= factor * torch.finfo(V.dtype).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "matrix",
    [
        torch.zeros(20, 20, dtype=torch.float64),
        torch.eye(20, dtype=torch.float64),
        conditioned(20, 1e12),
        normal(20, 2) @ normal(2, 20, seed=1),
    ],
    ids=["zero", "identity", "ill-conditioned", "low-rank"],
)
def test_basis_is_orthonormal_and_complete_whatever_the_matrix(matrix, dtype):
    A = matrix.to(dtype)
    space = grown(A, normal(20, 3, dtype=dtype), 7)
    assert space.is_complete
    assert space.dimension == 20
    assert_orthonormal(space.basis)
    assert torch.allclose(space.images, A @ space.basis, atol=1e-5 if dtype == torch.float32 else 1e-13)


def test_unusable_candidates_are_replaced():
    A = conditioned(20, 10)
    bad = torch.stack([torch.zeros(20), torch.full((20,), torch.inf), torch.full((20,), torch.nan)], -1).double()
    twice = torch.cat([bad, normal(20, 1), normal(20, 1)], -1)
    space = grown(A, twice, 1)
    assert space.dimension == 5
    assert_orthonormal(space.basis)
    # what could be used was
    assert torch.allclose(space.basis @ (space.basis.mT @ normal(20, 1)), normal(20, 1))


def test_the_space_is_the_block_krylov_space():
    A, start = conditioned(30, 100), normal(30, 2)
    space = grown(A, start, 3)
    naive = torch.linalg.qr(torch.cat([start, A @ start, A @ (A @ start)], -1)).Q
    assert torch.allclose(space.basis @ space.basis.mT, naive @ naive.mT, atol=1e-9)


def test_the_scaled_space_is_that_of_the_scaled_matrix():
    A, start, scale = conditioned(30, 100), normal(30, 2), normal(30, seed=2).exp()
    scaled = grown(scale[:, None] * A * scale, start, 3)
    space = grown(A, start, 3, scale=scale)
    assert torch.allclose(space.basis, scaled.basis, atol=1e-9)
    assert torch.allclose(space.ritz().values, scaled.ritz().values)


def test_gram_space_needs_no_symmetry_and_no_square():
    A, start = normal(12, 30), normal(12, 2, seed=1)
    space = grown(A, A.mT @ start, 6, gram=True)
    assert space.is_complete
    assert space.dimension == 12
    # all of the row space, and nothing else
    assert torch.allclose(A @ space.basis @ space.basis.mT, A)
    assert torch.allclose(space.singular().values, torch.linalg.svdvals(A).flip(-1))


def test_exhausted_gram_space_of_a_wide_matrix_goes_on_in_the_row_space():
    A = torch.linalg.qr(normal(30, 12)).Q.mT
    space = grown(A, A.mT @ normal(12, 2, seed=1), 6, gram=True)
    assert torch.allclose(A @ space.basis @ space.basis.mT, A)


@pytest.mark.parametrize("num_loops", [1, 3])
def test_minimal_residual_is_minimal(num_loops):
    A, b = normal(25, 25), normal(25, 2, seed=1)
    space = grown(A, b, num_loops)
    x = space.combine(space.minimal_residual(b))
    residual = b - A @ x
    assert (space.images.mT @ residual).abs().max() < 1e-12
    best = torch.linalg.lstsq(A @ space.basis, b).solution
    assert torch.allclose(x, space.basis @ best)


def test_minimal_residual_of_dependent_images_is_the_shortest():
    A = torch.stack([normal(12, 3) @ normal(3, 12, seed=1), conditioned(12, 10)])
    b = normal(2, 12, 1, seed=2)
    space = grown(A, b, 12)
    x = space.combine(space.minimal_residual(b))
    assert torch.allclose(x, torch.linalg.pinv(A, rtol=1e-10) @ b)


def test_ritz_pairs_have_the_residuals_they_say():
    A = conditioned(40, 1e3)
    ritz = (space := grown(A, normal(40, 4), 3)).ritz()
    vectors = space.basis @ ritz.coefficients
    residuals = torch.linalg.vector_norm(A @ vectors - vectors * ritz.values, dim=-2)
    assert torch.allclose(ritz.residual_norms, residuals, atol=1e-14)
    true = torch.linalg.eigvalsh(A)
    distance = (true[:, None] - ritz.values).abs().amin(0)
    assert bool((distance <= ritz.residual_norms + 1e-14).all())


def test_singular_residuals_bound_the_distance_to_a_singular_value():
    A = normal(40, 30)
    found = grown(A, normal(30, 3, seed=1), 3, gram=True).singular()
    distance = (torch.linalg.svdvals(A)[:, None] - found.values).abs().amin(0)
    assert bool((distance <= found.residual_norms + 1e-13).all())


def test_refining_gives_float32_images_float64_digits():
    A = conditioned(20, 1e3, dtype=torch.float32)
    space = grown(A, normal(20, 20, dtype=torch.float32), 1)
    space.refine()
    assert torch.allclose(space.ritz().values, torch.linalg.eigvalsh(A.double()), atol=1e-15, rtol=1e-12)


def test_gradients_reach_start_and_scale():
    A, b = conditioned(15, 10), normal(15, 1)

    def residual(aux: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        space = SearchSpace(as_operator(A), scale=scale, generator=seeded())
        space.expand(torch.cat([space.scaled(b), aux], -1))
        space.expand(space.reached())
        return torch.linalg.vector_norm(b - A @ space.combine(space.minimal_residual(b)))

    aux, scale = normal(15, 2, seed=1).requires_grad_(True), normal(15, seed=2).exp().requires_grad_(True)
    assert torch.autograd.gradcheck(residual, (aux, scale))


def test_batch_is_the_loop_over_it_also_where_members_die():
    A = torch.stack(
        [torch.eye(16, dtype=torch.float64), conditioned(16, 100), torch.zeros(16, 16, dtype=torch.float64)]
    )
    start = normal(3, 16, 3)
    together = grown(A, start, 4)
    for member in range(3):
        alone = grown(A[member], start[member], 4)
        projector = alone.basis @ alone.basis.mT
        assert torch.allclose(together.basis[member] @ together.basis[member].mT, projector, atol=1e-10)
