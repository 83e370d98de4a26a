"""P in its split form against dense algebra, and the builders behind every name."""

import gc

import linear_operator.operators as lo
import pytest
import torch
from helpers import NAMES, kernel, normal, seeded, with_spectrum
from hypothesis import given, settings
from hypothesis import strategies as st

import rangeformer as rf
from rangeformer.distributions import draw
from rangeformer.operators import as_operator
from rangeformer.preconditioners.base import Preconditioner, scaled_identity
from rangeformer.preconditioners.local import LocalFactor, diagonal_factor

CLASSICAL = ["rpcholesky", "pivoted-cholesky", "nystrom"]


def whitener_naive(F: torch.Tensor, S: torch.Tensor) -> torch.Tensor:
    """M = (I + G G^T)^(-1/2) S with G = S F, by a dense eigenproblem."""
    G = S @ F
    eigenvalues, U = torch.linalg.eigh(torch.eye(S.shape[-1]).to(S) + G @ G.mT)
    return (U * eigenvalues.rsqrt()) @ U.mT @ S


def dense_parts(P: Preconditioner) -> tuple[torch.Tensor, torch.Tensor]:
    """M and P^-1 as the object applies them."""
    eye = torch.eye(P.shape[-1], dtype=P.dtype).expand(P.shape)
    return P.whiten(eye), P.solve(eye)


def build(A: torch.Tensor, name: str | None = "rangeformer", seed: int = 0, **options) -> Preconditioner:
    return rf.build_preconditioner(A, name, generator=seeded(seed), **options)


def random_factors(n: int, r: int, k: int, seed: int = 0) -> tuple[torch.Tensor, LocalFactor]:
    generator = seeded(seed)
    neighbors = torch.stack(
        [torch.cat([torch.randperm(i, generator=generator)[:k], torch.full((max(k - i, 0),), -1)]) for i in range(n)]
    )
    weights = 0.3 * normal(n, k, seed=seed) * (neighbors >= 0)
    return normal(n, r, seed=seed + 1), LocalFactor(neighbors, weights, 0.5 + torch.rand(n).double(), torch.float64)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 25), r=st.integers(0, 30), k=st.integers(0, 5), seed=st.integers(0, 99))
def test_split_form_is_the_dense_one(n, r, k, seed):
    F, local = random_factors(n, r, k, seed)
    P = Preconditioner(F, local, name="test")
    S = local.apply(torch.eye(n, dtype=torch.float64))
    M, inverse = dense_parts(P)
    # M is unique up to a rotation from the left; what is used is M^T M, A -> M A M^T's spectrum, and P
    torch.testing.assert_close(M.mT @ M, inverse, rtol=1e-8, atol=1e-8)
    naive = whitener_naive(F, S)
    torch.testing.assert_close(M, naive, rtol=1e-6, atol=1e-7)
    expected = torch.linalg.inv(torch.linalg.inv(S.mT @ S) + F @ F.mT)
    torch.testing.assert_close(inverse, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(P.whiten_transpose(torch.eye(n).double()), M.mT.contiguous())
    torch.testing.assert_close(P.logdet, -torch.linalg.slogdet(expected).logabsdet, rtol=1e-9, atol=1e-9)
    T = P.deflated_directions()
    torch.testing.assert_close(S.mT @ S - T @ T.mT, inverse, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_name_builds_an_spd_matrix_near_the_kernel(name, dtype):
    A = kernel(150, lengthscale=0.1, dtype=dtype)
    P = build(A, name)
    M, inverse = dense_parts(P)
    assert M.dtype == inverse.dtype == P.dtype == dtype
    assert P.logdet.dtype == torch.float64
    B = torch.linalg.eigvalsh((M @ A @ M.mT).double())
    assert (B > 0).all()
    cond = torch.linalg.cond(A.double())
    if name is not None:
        assert B.max() / B.min() < 0.5 * cond
    torch.testing.assert_close(P.logdet, -torch.linalg.slogdet(inverse.double()).logabsdet, rtol=1e-3, atol=1e-2)
    assert P.name == (name or "none")


@pytest.mark.parametrize("name", ["rangeformer", "rangeformer-untrained", "rpcholesky", "pivoted-cholesky"])
@pytest.mark.parametrize("noise", [1e-6, 1e-2, 1.0])
def test_known_trace_is_the_trace(name, noise):
    # the log-determinant's exact term: tr(S A S^T) without reading A again
    A = kernel(120, noise=noise)
    P = build(A, name, num_columns=20)
    S = P.local.apply(torch.eye(120).double())
    torch.testing.assert_close(P.trace_local(), (S @ A @ S.mT).trace(), rtol=1e-7, atol=1e-7)


def test_trace_belongs_to_the_operator_it_was_built_from():
    operator, other = as_operator(kernel(50)), as_operator(kernel(50))
    P = build(operator)
    assert P.was_built_from(operator)
    assert not P.was_built_from(other)
    del operator
    gc.collect()
    assert not P.was_built_from(other)


def test_global_and_local_beat_either_alone():
    A = kernel(400, lengthscale=0.05, noise=1e-3)

    def spread(P: Preconditioner) -> float:
        M, _ = dense_parts(P)
        eigenvalues = torch.linalg.eigvalsh(M @ A @ M.mT)
        return float(eigenvalues.max() / eigenvalues.min())

    both = spread(build(A, num_columns=40, num_neighbors=10))
    assert both < 0.5 * spread(build(A, num_columns=40, num_neighbors=0))
    assert both < 0.5 * spread(build(A, "rpcholesky", num_columns=40))


def test_all_neighbours_are_exact():
    A = kernel(40)
    M, _ = dense_parts(build(A, num_columns=10, num_neighbors=39))
    assert torch.linalg.eigvalsh(M @ A @ M.mT).sub(1).abs().max() < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_batch_of_one_matrix_is_that_matrix(name):
    A = kernel(60)
    v = normal(60, 3)
    one, batch = build(A, name), build(A.expand(1, 1, 60, 60), name)
    torch.testing.assert_close(batch.solve(v.expand(1, 1, 60, 3))[0, 0], one.solve(v), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(batch.logdet[0, 0], one.logdet)


@pytest.mark.parametrize("name", NAMES)
def test_batch_members_are_approximated_each_on_its_own(name):
    A = torch.stack([kernel(80, lengthscale=0.1, seed=0), 5 * kernel(80, lengthscale=0.5, seed=1)])
    M, _ = dense_parts(build(A, name, num_columns=20))
    B = torch.linalg.eigvalsh(M @ A @ M.mT)
    cond = torch.linalg.cond(A)
    assert (B.amax(-1) / B.amin(-1) <= cond * 1.01).all()


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bits_other_seed_other_bits(name):
    A, v = kernel(100), normal(100, 2)
    assert torch.equal(build(A, name, 3).solve(v), build(A, name, 3).solve(v))
    if name not in (None, "pivoted-cholesky"):
        assert not torch.equal(build(A, name, 3).solve(v), build(A, name, 4).solve(v))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("exponent", [-60, 60])
def test_scaling_the_matrix_scales_the_preconditioner(name, exponent):
    A, v, scale = kernel(80), normal(80, 2), 2.0**exponent
    if name is None:
        return
    plain, scaled = build(A, name), build(A * scale, name)
    torch.testing.assert_close(scaled.solve(v) * scale, plain.solve(v), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(scaled.logdet, plain.logdet + 80 * torch.tensor(scale).double().log())


def test_stated_noise_is_used_and_estimated_noise_is_cautious():
    x = kernel(200, lengthscale=0.3, noise=0)
    noise = torch.full((200,), 0.05).double()
    stated = lo.AddedDiagLinearOperator(lo.DenseLinearOperator(x), lo.DiagLinearOperator(noise))
    A = x + torch.diag(noise)
    M, _ = dense_parts(build(stated, "rpcholesky"))
    guessed, _ = dense_parts(build(A, "rpcholesky"))
    conds = [torch.linalg.cond(W @ A @ W.mT) for W in (M, guessed)]
    assert conds[0] < 30
    assert conds[1] < 20 * conds[0]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_smallest_matrices(n, name):
    A = torch.eye(n).double() * 2 + 0.5
    M, inverse = dense_parts(build(A, name))
    assert (torch.linalg.eigvalsh(inverse) > 0).all()
    torch.testing.assert_close(M.mT @ M, inverse)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "what", ["zero", "negative", "indefinite", "one zero", "one negative", "all ones", "tiny", "huge"]
)
def test_whatever_the_matrix_p_is_finite_and_spd(name, what):
    n = 30
    one = torch.ones(n).double()
    A = {
        "zero": torch.zeros(n, n).double(),
        "negative": -kernel(n),
        "indefinite": normal(n, n) + normal(n, n).mT,
        "one zero": torch.diag(one.index_fill(0, torch.tensor([4]), 0.0)),
        "one negative": torch.diag(one.index_fill(0, torch.tensor([4]), -1.0)),
        "all ones": torch.ones(n, n).double(),
        "tiny": kernel(n) * 1e-150,
        "huge": kernel(n) * 1e150,
    }[what]
    P = build(A, name)
    M, _ = dense_parts(P)
    assert M.isfinite().all()
    assert P.logdet.isfinite()
    assert torch.linalg.matrix_rank(M / M.abs().max()) == n


@pytest.mark.parametrize("law", ["badly_scaled", "graph_laplacian", "kernel_clustered", "wishart"])
def test_structured_laws_are_never_made_much_worse(law):
    A = draw(law, 100, generator=seeded(1)).matrix[0]
    M, _ = dense_parts(build(A))
    assert torch.linalg.cond(M @ A @ M.mT) <= 1.5 * torch.linalg.cond(A)


def test_structure_is_reused_and_nothing_searched():
    A, B = kernel(120, lengthscale=0.2), kernel(120, lengthscale=0.22)
    first = build(A, num_columns=12, num_neighbors=4)
    operator = as_operator(B)
    again = rf.build_preconditioner(operator, structure=first.structure, generator=seeded(1))
    assert torch.equal(again.structure.pivots, first.structure.pivots)
    assert torch.equal(again.structure.neighbors, first.structure.neighbors)
    assert (again.num_columns, again.num_neighbors) == (12, 4)
    M, _ = dense_parts(again)
    assert torch.linalg.cond(M @ B @ M.mT) < 0.2 * torch.linalg.cond(B)


def test_products_alone_fall_back_on_a_sketch():
    A = kernel(80, lengthscale=0.5, noise=1e-3)
    operator = as_operator((lambda v: A @ v, A.shape))
    P = rf.build_preconditioner(operator, "rangeformer", num_columns=30, generator=seeded())
    assert P.name == "rangeformer (products only: nystrom)"
    assert (operator.reads.passes, operator.reads.matvecs, operator.reads.entries) == (1, 30, 0)
    M, _ = dense_parts(P)
    assert torch.linalg.cond(M @ A @ M.mT) < 0.2 * torch.linalg.cond(A)


def test_nystrom_is_nearly_the_best_low_rank():
    # Frangella, Tropp & Udell 2023, theorem 5.1: the condition number nears (lambda_{r+1} + mu) / mu
    A = with_spectrum(torch.cat([torch.logspace(3, 0, 30), torch.ones(90)]))
    M, _ = dense_parts(build(A, "nystrom", num_columns=50))
    assert torch.linalg.cond(M @ A @ M.mT) < 0.02 * torch.linalg.cond(A)


@pytest.mark.parametrize("name", CLASSICAL)
def test_no_columns_is_a_choice(name):
    P = build(kernel(30), name, num_columns=0)
    assert P.num_columns == 0
    assert dense_parts(P)[1].isfinite().all()


def test_options_and_names_agree():
    A, v = kernel(60), normal(60, 2)
    pairs = [
        ("rangeformer", rf.RangeFormerPreconditioner()),
        ("rpcholesky", rf.ColumnPreconditioner()),
        ("pivoted-cholesky", rf.ColumnPreconditioner("greedy")),
        ("nystrom", rf.NystromPreconditioner()),
    ]
    for name, options in pairs:
        assert torch.equal(build(A, name).solve(v), build(A, options).solve(v))
        assert build(A, options).name == name
    few = build(A, rf.RangeFormerPreconditioner(num_columns=7, num_neighbors=3))
    assert (few.num_columns, few.num_neighbors) == (7, 3)
    model = rf.RangeFormer.untrained()
    by_model = build(A, rf.RangeFormerPreconditioner(num_columns=7, num_neighbors=3, model=model))
    by_name = build(A, "rangeformer-untrained", num_columns=7, num_neighbors=3)
    assert torch.equal(by_model.solve(v), by_name.solve(v))


def test_finished_preconditioner_is_returned():
    A = kernel(30)
    P = build(A)
    assert rf.build_preconditioner(A, P) is P


def test_identity_preconditioner():
    P = scaled_identity(torch.ones(5).double())
    v = normal(5, 2)
    assert torch.equal(P.solve(v), v)
    assert P.logdet == 0
    P = Preconditioner(torch.empty(2, 0).double(), diagonal_factor(torch.tensor([4.0, 1.0]).double()), name="diagonal")
    torch.testing.assert_close(P.solve(torch.ones(2, 1).double()), torch.tensor([[0.25], [1.0]]).double())


def test_preconditioner_of_another_matrix():
    P = build(kernel(10))
    with pytest.raises(ValueError, match=r"must have A's shape \(12, 12\). Got one built for \(10, 10\)"):
        rf.build_preconditioner(kernel(12), P)
    with pytest.raises(ValueError, match="must have A's dtype torch.float32 and device cpu. Got one in torch.float64"):
        rf.build_preconditioner(kernel(10).float(), P)
    with pytest.raises(ValueError, match=r"`structure` must belong to a matrix of A's shape \(12, 12\)"):
        rf.build_preconditioner(kernel(12), structure=P.structure)
    with pytest.raises(ValueError, match="`A` must be square"):
        rf.build_preconditioner(normal(3, 4))
