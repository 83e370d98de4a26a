"""Failures: recorded, warned about, and answered by Cholesky; never a wrong number."""

import gpytorch
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


def low_noise(dtype, noise):
    model = exact_gp(810, dtype=dtype, noise=0.1)
    model.covar_module.base_kernel = gpytorch.kernels.RBFKernel().to(dtype)
    model.covar_module.base_kernel.lengthscale = 1.0
    model.likelihood.noise_covar.register_constraint("raw_noise", gpytorch.constraints.GreaterThan(1e-9))
    model.likelihood.noise = noise
    return model


@pytest.mark.filterwarnings("ignore:A not p.d., added jitter")
def test_jitter_is_said_with_its_size_and_stands_in_the_report():
    with pytest.warns(rf.ConvergenceWarning) as caught, use_rangeformer() as recorder:
        loss_of(low_noise(torch.float32, 1e-7))
    assert any("added" in str(w.message) and "times the smallest noise" in str(w.message) for w in caught)
    (call,) = [call for call in recorder.report().calls if call.method == "cholesky (fallback)"]
    assert call.jitter > 0
    assert "jitter (log_prob)" in str(recorder.report())


def test_float32_that_float64_can_factorise_needs_no_jitter():
    model = low_noise(torch.float32, 1e-4)
    with pytest.warns(rf.ConvergenceWarning), use_rangeformer(max_iterations=1) as recorder:
        loss = loss_of(model)
    exact, _, _ = truth(model)
    assert abs(float(loss.detach()) - float(exact)) <= 1e-5 * abs(float(exact))
    (call,) = [call for call in recorder.report().calls if call.method == "cholesky (fallback)"]
    assert call.jitter is None


def test_a_tolerance_that_is_missed_and_kept_stands_in_the_report():
    model, x = low_noise(torch.float32, 1e-4), data(3, torch.float32, seed=4)[0]
    with torch.no_grad(), pytest.warns(rf.ConvergenceWarning), use_rangeformer(eval_rtol=1e-5) as recorder:
        predict(model, x)
    report = recorder.report()
    missed = [call for call in report.missed if call.purpose == "mean"]
    assert missed or report.fallbacks
    for call in missed:
        assert call.residual > call.rtol
        assert f"missed the tolerance ({call.purpose})" in str(report)
    assert report.worst_residual() == max(call.residual for call in report.calls if call.residual is not None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_targets_that_are_no_numbers_are_named(bad):
    model = exact_gp(810)
    model.train_targets[[3, 5]] = bad
    with use_rangeformer() as recorder:
        with pytest.raises(ValueError, match="The targets must be finite. Got 2 entries that are not"):
            loss_of(model)
        with pytest.raises(ValueError, match="The targets must be finite. Got 2 entries"):
            predict(model, data(3, seed=4)[0])
    assert recorder.report().fallbacks == ()


@pytest.mark.parametrize("wrong", [TypeError, RuntimeError, NotImplementedError])
def test_any_failure_of_ours_falls_back(monkeypatch, wrong):
    def broken(*args, **kwargs):
        raise wrong("something is broken")

    model = exact_gp(810)
    monkeypatch.setattr(rf, "inv_quad_logdet", broken)
    with pytest.warns(rf.ConvergenceWarning, match=f"{wrong.__name__}: something is broken"), use_rangeformer():
        loss = loss_of(model)
    assert torch.allclose(loss.double(), truth(model)[0], rtol=1e-8)
    assert settings.last_report().fallbacks == (("log_prob", f"{wrong.__name__}: something is broken"),)


@pytest.mark.parametrize("which", ["likelihood", "data"])
def test_mixed_precisions_are_promoted(which):
    model, test = exact_gp(810), data(4, seed=4)[0]
    if which == "likelihood":
        model.likelihood = model.likelihood.float()
    else:
        model.train_targets = model.train_targets.float()
    with by_cholesky(), torch.no_grad():
        expected = predict(model, test)
        mean, variance, loss = expected.mean, expected.variance, loss_of(model)
    with use_rangeformer(rtol=1e-6, eval_rtol=1e-7) as recorder, torch.no_grad():
        ours = predict(model, test)
        assert torch.allclose(ours.mean, mean, atol=1e-5)
        assert ours.mean.dtype == mean.dtype
        assert torch.allclose(ours.variance, variance, rtol=1e-4)
        assert abs(float(loss_of(model)) - float(loss)) < 2e-3
    assert recorder.report().num_calls("log_prob") == 1
    assert recorder.report().fallbacks == ()
