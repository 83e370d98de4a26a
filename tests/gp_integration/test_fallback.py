"""Failures: recorded, warned about, and answered by Cholesky; never a wrong number."""

import pytest
import torch
from gp_models import by_cholesky, data, exact_gp, loss_of, predict, truth, value_and_gradient
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator
from linear_operator.utils.errors import NanError, NotPSDError

import rangeformer as rf
from gp_integration import settings
from gp_integration.settings import use_rangeformer


def failing():
    """Options that no solve can meet: one iteration, to a tolerance far below it."""
    return {"rtol": 1e-9, "eval_rtol": 1e-9, "max_iterations": 1, "num_columns": 2, "num_neighbors": 0}


@pytest.fixture
def all_warnings():
    """Convergence warnings come from the driver and from us: let all of them be caught together."""
    with pytest.warns(rf.ConvergenceWarning) as caught:
        yield caught
    assert any("fell back to Cholesky" in str(w.message) for w in caught)


def test_a_training_step_that_does_not_converge(all_warnings):
    model = exact_gp(810)
    with use_rangeformer(**failing()):
        loss, gradient = value_and_gradient(model)
    true_loss, true_gradient, scale = truth(model)
    assert torch.allclose(loss, true_loss, rtol=1e-10)
    assert (gradient - true_gradient).norm() <= 1e-8 * scale
    report = settings.last_report()
    assert [purpose for purpose, _ in report.fallbacks] == ["log_prob"]
    assert "cholesky (fallback)" in {call.method for call in report.calls}
    assert "fallback to Cholesky (log_prob)" in str(report)


def test_a_prediction_that_does_not_converge(all_warnings):
    model, x = exact_gp(810), data(5, seed=9)[0]
    with torch.no_grad():
        with by_cholesky():
            expected = predict(model, x)
            mean, covariance = expected.mean, expected.covariance_matrix
        with use_rangeformer(**failing()):
            ours = predict(model, x)
    assert torch.allclose(ours.mean, mean, rtol=1e-8)
    assert torch.allclose(ours.covariance_matrix, covariance, atol=1e-10)
    assert [purpose for purpose, _ in settings.last_report().fallbacks] == ["mean", "covariance"]


def test_raising_instead():
    with (
        use_rangeformer(fallback="raise", **failing()),
        pytest.warns(rf.ConvergenceWarning),
        pytest.raises(RuntimeError, match=r"use_rangeformer failed \(log_prob\)"),
    ):
        loss_of(exact_gp(810))
    assert settings.last_report().fallbacks


def added_diag(matrix, noise=0.01):
    n = matrix.shape[-1]
    return DenseLinearOperator(matrix) + DiagLinearOperator(torch.full((n,), noise, dtype=matrix.dtype))


def kernel(n=820):
    x = torch.linspace(0, 4, n, dtype=torch.float64)
    return torch.exp(-(x[:, None] - x).abs())


# linear_operator announces every jitter it tries before it gives up
@pytest.mark.filterwarnings("ignore:A not p.d., added jitter")
@pytest.mark.parametrize(
    "call",
    [
        lambda A, rhs: A.solve(rhs),
        lambda A, rhs: A.logdet(),
        lambda A, rhs: A.inv_quad(rhs),
        lambda A, rhs: A.inv_quad_logdet(rhs, logdet=True),
    ],
    ids=["solve", "logdet", "inv_quad", "inv_quad_logdet"],
)
def test_an_indefinite_matrix_is_the_error_cholesky_gives(call, all_warnings):
    K = kernel()
    K[3, 3] = -5
    with use_rangeformer(), pytest.raises(NotPSDError):
        call(added_diag(K), torch.ones(820, 1, dtype=torch.float64))
    assert len(settings.last_report().fallbacks) == 1


def test_nan_is_the_error_cholesky_gives(all_warnings):
    K = kernel()
    K[3, 4] = K[4, 3] = torch.nan
    with use_rangeformer(), pytest.raises(NanError):
        added_diag(K).solve(torch.ones(820, dtype=torch.float64))
    assert "NaN" in settings.last_report().fallbacks[0][1]


@pytest.mark.filterwarnings("ignore:A not p.d., added jitter")
def test_a_hopeless_matrix_ends_in_cholesky(all_warnings):
    x = torch.linspace(0, 1, 820, dtype=torch.float32)
    K = torch.exp(-((x[:, None] - x) ** 2))  # numerically of rank ten
    rhs = torch.sin(7 * x)
    with use_rangeformer(rtol=1e-6):
        solution = added_diag(K, 1e-7).solve(rhs)
    assert solution.isfinite().all()
    assert settings.last_report().fallbacks


def test_the_backward_solve_is_checked_too(all_warnings):
    K = kernel().requires_grad_(True)
    rhs = torch.ones(820, 1, dtype=torch.float64)
    weights = torch.linspace(-1, 1, 820, dtype=torch.float64)[:, None]
    original, count = rf.linear_solve, []

    def second_fails(*args, **kwargs):
        count.append(1)
        if len(count) == 2:
            kwargs["max_iterations"], kwargs["rtol"] = 1, 1e-15
        return original(*args, **kwargs)

    patch = pytest.MonkeyPatch()
    patch.setattr(rf, "linear_solve", second_fails)
    with use_rangeformer(rtol=1e-8) as recorder:
        solution = added_diag(K).solve(rhs)
    (solution * weights).sum().backward()
    patch.undo()
    dense = kernel() + 0.01 * torch.eye(820, dtype=torch.float64)
    g, x = torch.linalg.solve(dense, weights), torch.linalg.solve(dense, rhs)
    expected = -(g @ x.mT + x @ g.mT) / 2
    assert (K.grad - expected).norm() <= 1e-5 * expected.norm()
    assert [purpose for purpose, _ in recorder.report().fallbacks] == ["solve (backward)"]


def test_a_solution_at_the_limit_of_float32_has_not_failed():
    n = 820
    x = torch.linspace(0, 1, n, dtype=torch.float32)
    K = torch.exp(-((x[:, None] - x) ** 2) / 0.02)
    rhs = torch.sin(40 * x)[:, None]
    with use_rangeformer(rtol=3e-7) as recorder, pytest.warns(rf.ConvergenceWarning, match="float32"):
        solution = added_diag(K, 1e-3).solve(rhs)
    assert not recorder.report().fallbacks
    assert 3e-7 < recorder.report().worst_residual() < 3e-5
    exact = torch.linalg.solve(K.double() + 1e-3 * torch.eye(n, dtype=torch.float64), rhs.double())
    factor = torch.linalg.cholesky(K + 1e-3 * torch.eye(n))
    by_cholesky_error = (torch.cholesky_solve(rhs, factor) - exact).norm()
    assert (solution - exact).norm() <= 2 * by_cholesky_error
