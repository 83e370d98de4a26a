"""One loop expands every Krylov space, and a solution within a space knows when its own residual is small."""

import pytest
import torch
from helpers import normal, with_spectrum

import rangeformer as rf
from rangeformer.krylov.expansion import GalerkinSolution, expand_until, krylov_space


def parts(n: int = 90, num_columns: int = 3):
    A = with_spectrum(torch.logspace(-2, 0, n, dtype=torch.float64))
    P = rf.build_preconditioner(A, None)
    rhs = torch.nn.functional.normalize(normal(n, num_columns), dim=0)
    return A, P, rhs, krylov_space(rf.as_operator(A), P, P.whiten(rhs))


def test_it_stops_as_soon_as_finished_says_so():
    *_, krylov = parts()
    asked = []
    assert expand_until(krylov, lambda last: asked.append(last) or len(asked) == 4, max_iterations=50)
    assert asked == [False] * 4
    assert krylov.num_blocks == 4


def test_the_last_call_says_that_it_is_the_last():
    *_, krylov = parts()
    asked = []
    assert not expand_until(krylov, lambda last: bool(asked.append(last)), max_iterations=3)
    assert asked == [False, False, True]
    assert krylov.num_blocks == 3


def test_an_exhausted_space_ends_the_loop():
    *_, krylov = parts(n=6)
    asked = []
    assert not expand_until(krylov, lambda last: bool(asked.append(last)), max_iterations=1000)
    assert asked[-1]
    assert krylov.num_blocks == 2


def test_a_space_without_a_solution_is_not_asked():
    A = -torch.eye(20, dtype=torch.float64)
    P = rf.build_preconditioner(A, None)
    krylov = krylov_space(rf.as_operator(A), P, normal(20, 2))
    assert not expand_until(krylov, lambda last: pytest.fail("asked"), max_iterations=5)
    solution = GalerkinSolution(krylov, P, normal(20, 2), torch.full((2,), 1e-3, dtype=torch.float64))
    assert not bool(solution.value().any())
    assert bool(solution.indefinite.all())


def test_the_solution_meets_its_target_and_not_one_block_earlier():
    A, P, rhs, krylov = parts()
    targets = torch.full((3,), 1e-6, dtype=torch.float64)
    solution = GalerkinSolution(krylov, P, rhs, targets)
    assert expand_until(krylov, solution.finished, max_iterations=60)
    assert float(torch.linalg.vector_norm(rhs - A @ solution.value(), dim=0).max()) <= 1.1e-6
    *_, fewer = parts()
    short = GalerkinSolution(fewer, P, rhs, targets)
    assert not expand_until(fewer, short.finished, max_iterations=krylov.num_blocks - 1)
    assert float(torch.linalg.vector_norm(rhs - A @ short.value(), dim=0).max()) > 1e-6
