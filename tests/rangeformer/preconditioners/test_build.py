"""Names stand for options, options build, a user's own do too, and a reused structure needs no pilot sample."""

import dataclasses

import pytest
import torch
from helpers import normal, with_spectrum

import rangeformer as rf
from rangeformer.operators import DenseOperator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.preconditioners.budget import choose_budget
from rangeformer.preconditioners.local import diagonal_factor
from rangeformer.preconditioners.pilot import pilot


def kernel(n: int = 600, length: float = 0.5) -> torch.Tensor:
    x = torch.rand(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distance = torch.cdist(x, x) / length
    return (1 + distance) * torch.exp(-distance)


def noisy(length: float = 0.5) -> DenseOperator:
    K = kernel(length=length)
    return DenseOperator(K, torch.full((len(K),), 0.01, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rangeformer", rf.RangeFormerPreconditioner()),
        ("rangeformer-untrained", rf.RangeFormerPreconditioner(trained=False)),
        ("rpcholesky", rf.ColumnPreconditioner("random")),
        ("pivoted-cholesky", rf.ColumnPreconditioner("greedy")),
        ("nystrom", rf.NystromPreconditioner()),
        ("cholesky", rf.CholeskyPreconditioner()),
    ],
)
def test_a_name_is_shorthand_for_options(name, options):
    A = kernel(300) + 0.01 * torch.eye(300)
    vectors = normal(300, 2)
    by_name, by_value = rf.build_preconditioner(A, name), rf.build_preconditioner(A, options)
    assert by_name.name == by_value.name == options.name == name
    assert torch.equal(by_name.whiten(vectors), by_value.whiten(vectors))


def test_trained_and_untrained_options_are_told_apart_by_their_fields():
    assert rf.RangeFormerPreconditioner() != rf.RangeFormerPreconditioner(trained=False)


@dataclasses.dataclass(frozen=True)
class Jacobi(rf.PreconditionerOptions):
    """The diagonal of A."""

    @property
    def name(self) -> str:
        return "jacobi"

    def build(self, operator, context):
        diagonal = operator.diagonal()
        return Preconditioner(diagonal.unsqueeze(-1)[..., :0], diagonal_factor(diagonal), name=self.name)


def test_options_of_ones_own_build_the_preconditioner():
    scales = torch.logspace(0, 3, 200, dtype=torch.float64)
    A = scales * with_spectrum(torch.logspace(-1, 0, 200, dtype=torch.float64)) * scales.unsqueeze(-1)
    rhs = normal(200, 2)
    solution = rf.linear_solve(A, rhs, preconditioner=Jacobi(), method="cg", rtol=1e-8)
    plain = rf.linear_solve(A, rhs, preconditioner=None, method="cg", rtol=1e-8, max_iterations=5000)
    assert solution.preconditioner == "jacobi"
    assert bool(solution.converged.all())
    assert solution.num_iterations < plain.num_iterations / 5
    assert torch.allclose(rf.logdet(A, preconditioner=Jacobi()).value, torch.logdet(A), rtol=1e-8)


def test_a_reused_structure_reads_no_pilot_sample_where_the_noise_is_stated(monkeypatch):
    first = noisy()
    structure = rf.build_preconditioner(first, num_rhs=16).structure

    def forbidden(*arguments, **options):
        raise AssertionError("the pilot sample was read")

    monkeypatch.setattr("rangeformer.preconditioners.global_local.pilot", forbidden)
    again = noisy(0.55)
    P = rf.build_preconditioner(again, num_rhs=16, structure=structure)
    # the pivots' columns, the noise floor and the residual's diagonal, the blocks of the local factor; no more
    n, c, k = 600, structure.pivots.shape[-1], structure.neighbors.shape[-1]
    assert again.reads.passes == 0
    assert again.reads.entries <= n * c + 3 * n + n * (k + 1) ** 2
    assert again.reads.entries < first.reads.entries
    assert P.structure is structure
    with pytest.raises(AssertionError, match="pilot"):
        rf.build_preconditioner(noisy(), num_rhs=16)


def test_a_noise_that_nobody_states_is_still_estimated():
    A = kernel() + 0.01 * torch.eye(600)
    structure = rf.build_preconditioner(A).structure
    again = rf.as_operator(A)
    assert again.noise is None
    rf.build_preconditioner(again, structure=structure)
    assert again.reads.passes > 0


def test_the_budget_is_never_more_than_the_matrix_has():
    operator = rf.as_operator(kernel(20) + 0.01 * torch.eye(20))
    budget = choose_budget(operator, pilot(operator), 16, num_columns=500, num_neighbors=500)
    assert (budget.num_columns, budget.num_neighbors) == (20, 19)


@pytest.mark.parametrize("options", [rf.ColumnPreconditioner(rank=-1), rf.NystromPreconditioner(rank=-1)])
def test_impossible_options_are_refused_before_any_work(options):
    operator = noisy()
    with pytest.raises(ValueError, match="`rank` must be an integer >= 0"):
        rf.linear_solve(operator, normal(600), preconditioner=options)
    assert operator.reads.entries == 0


def test_options_say_the_rank_of_a_sketch_of_a_matrix_known_by_products():
    A = kernel(200) + 0.01 * torch.eye(200)
    operator = rf.as_operator((lambda v: A @ v, (200, 200)), dtype=torch.float64)
    P = rf.build_preconditioner(operator, rf.ColumnPreconditioner(rank=20))
    assert P.num_columns == 20
    assert P.name == "rpcholesky (products only: nystrom)"
