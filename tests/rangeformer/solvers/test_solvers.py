"""Solvers as values: names are shorthand, a user's own class solves, and how a solve ended is an enum."""

from dataclasses import dataclass

import pytest
import torch
from helpers import normal, with_spectrum

import rangeformer as rf
from rangeformer.krylov.conjugate_gradients import conjugate_gradients
from rangeformer.solvers.base import System
from rangeformer.solvers.iterative import automatic


def spd(n: int = 120) -> torch.Tensor:
    return with_spectrum(torch.logspace(-2, 0, n, dtype=torch.float64))


@dataclass(frozen=True)
class SteepestDescent(rf.Solver):
    """Not good, and nobody's idea but the test's: it proves that a stranger's class is what solves."""

    name = "steepest-descent"

    def init(self, system):
        return torch.zeros_like(system.rhs), system.rhs, 0

    def is_finished(self, system, state, *, last):
        return bool((torch.linalg.vector_norm(state[1], dim=-2) <= system.targets).all())

    def step(self, system, state):
        x, residual, count = state
        image = system.operator.matmul(residual)
        length = residual.square().sum(-2) / (residual * image).sum(-2).clamp_min(1e-300)
        return x + length * residual, residual - length * image, count + 1

    def num_iterations(self, state):
        return state[2]

    def value(self, system, state):
        return state[0]


@pytest.mark.parametrize(("name", "solver"), [("cg", rf.CG()), ("block-cg", rf.BlockLanczos())])
def test_a_name_is_shorthand_for_a_value(name, solver):
    A, rhs = spd(), normal(120, 5)
    by_name = rf.linear_solve(A, rhs, method=name, preconditioner=None)
    by_value = rf.linear_solve(A, rhs, method=solver, preconditioner=None)
    assert torch.equal(by_name.value, by_value.value)
    assert by_value.method == name


def test_the_learned_solver_is_a_value_too():
    A, rhs = spd(), normal(120, 2)
    by_name = rf.linear_solve(A, rhs, method="learned-krylov", num_loops=2)
    by_value = rf.linear_solve(A, rhs, method=rf.LearnedKrylov(num_loops=2))
    assert torch.equal(by_name.value, by_value.value)
    assert by_value.method == "learned-krylov"


def test_a_solver_of_ones_own_is_run_and_its_residual_recomputed():
    A, rhs = spd(), normal(120, 3)
    solution = rf.linear_solve(A, rhs, method=SteepestDescent(), rtol=1e-4, preconditioner=None, max_iterations=3000)
    assert solution.method == "steepest-descent"
    assert bool(solution.converged.all())
    residual = torch.linalg.vector_norm(rhs - A @ solution.value, dim=0) / torch.linalg.vector_norm(rhs, dim=0)
    assert torch.allclose(solution.residual_norms, residual, rtol=1e-6)


def test_a_solver_that_does_nothing_is_found_out():
    class Idle(SteepestDescent):
        name = "idle"

        def step(self, system, state):
            return state[0], state[1], state[2] + 1

    with pytest.warns(rf.ConvergenceWarning):
        solution = rf.linear_solve(spd(), normal(120, 2), method=Idle(), max_iterations=5, fallback=None)
    assert not bool(solution.converged.any())
    assert solution.status is rf.Status.MAX_ITERATIONS
    assert torch.equal(solution.residual_norms, torch.ones(2, dtype=torch.float64))


def test_init_step_and_value_reproduce_the_loop():
    A, rhs = spd(), normal(120, 2)
    P = rf.build_preconditioner(A, None)
    targets = torch.full((2,), 1e-3, dtype=torch.float64)
    system = System(rf.as_operator(A), rhs, P, targets)
    solver = rf.CG()
    state = solver.init(system)
    while not solver.is_finished(system, state, last=False):
        state = solver.step(system, state)
    whole = conjugate_gradients(system.operator.matmul, rhs, P.solve, target_norms=targets, max_iterations=500)
    assert solver.num_iterations(state) == whole.num_iterations > 3
    assert torch.equal(solver.value(system, state), whole.value)


@pytest.mark.parametrize(
    ("num_columns", "is_exact", "name"), [(1, False, "cg"), (4, False, "block-cg"), (1, True, "block-cg")]
)
def test_auto_depends_on_the_number_of_columns(num_columns, is_exact, name):
    assert automatic(num_columns, is_exact=is_exact).name == name


def test_status_says_how_it_ended():
    A, rhs = spd(), normal(120, 2)
    assert rf.linear_solve(A, rhs).status is rf.Status.CONVERGED
    options = {"preconditioner": None, "max_iterations": 2}
    with pytest.warns(rf.ConvergenceWarning, match="max_iterations=2"):
        stopped = rf.linear_solve(A, rhs, fallback=None, **options)
    assert stopped.status is stopped.cause is rf.Status.MAX_ITERATIONS
    with pytest.warns(rf.ConvergenceWarning, match="dense Cholesky"):
        rescued = rf.linear_solve(A, rhs, **options)
    assert (rescued.status, rescued.cause) == (rf.Status.FALLBACK_USED, rf.Status.MAX_ITERATIONS)
    with pytest.warns(rf.ConvergenceWarning, match="not positive definite"):
        indefinite = rf.linear_solve(-A, rhs, fallback=None, preconditioner=None)
    assert indefinite.status is rf.Status.INDEFINITE
    with pytest.warns(rf.ConvergenceWarning, match="rounded to torch.float32"):
        rounded = rf.linear_solve(A.float(), rhs.float(), rtol=1e-8)
    assert rounded.status is rf.Status.PRECISION_LIMITED
    with pytest.warns(rf.ConvergenceWarning, match="not positive definite"):
        assert rf.logdet(-A, fallback=None).status is rf.Status.INDEFINITE


@pytest.mark.parametrize(
    ("arguments", "old", "new"),
    [
        ({"method": "rangeformer-direct"}, "rangeformer-direct", "learned-krylov"),
        ({"fallback": "direct"}, "direct", "dense"),
    ],
)
def test_old_names_still_work_and_say_what_they_are_called_now(arguments, old, new):
    A, rhs = spd(), normal(120, 2)
    with pytest.warns(DeprecationWarning, match=f"{old}.*{new}"):
        solution = rf.linear_solve(A, rhs, **arguments)
    assert bool(solution.converged.all())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rtol", -1.0, "`rtol` must be a positive number"),
        ("max_iterations", 0, "`max_iterations` must be an integer >= 1"),
        ("fallback", "hope", "`fallback` must be one of"),
    ],
)
def test_stopping_checks_itself(field, value, message):
    with pytest.raises(ValueError, match=message):
        rf.Stopping(**{field: value})


def test_the_old_name_of_the_learned_krylov_model_says_the_new_one():
    with pytest.warns(DeprecationWarning, match="GalerkinRangeFormer.*LearnedKrylovModel"):
        old = rf.GalerkinRangeFormer
    assert old is rf.LearnedKrylovModel
    with pytest.raises(AttributeError, match="no attribute 'Unheard'"):
        _ = rf.Unheard


def test_the_learned_weights_are_read_only_where_they_are_asked_for(monkeypatch):
    def forbidden():
        raise AssertionError("the weights were read")

    monkeypatch.setattr("rangeformer.solvers.learned_krylov._default", forbidden)
    A, rhs = spd(), normal(120, 2)
    assert bool(rf.linear_solve(A, rhs).converged.all())
    assert bool(rf.logdet(A).converged)
    with pytest.raises(AssertionError, match="were read"):
        rf.linear_solve(A, rhs, method="learned-krylov")
    with pytest.raises(AssertionError, match="were read"):
        rf.logdet(A, method="learned-krylov")
