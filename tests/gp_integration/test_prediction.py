"""Predictive mean and covariance: accuracy, safety of variances, reuse, gradients."""

import copy
import pickle

import gpytorch
import pytest
import torch
from gp_models import by_cholesky, data, exact_gp, predict

import rangeformer as rf
from gp_integration import fallback, prediction, request, settings, training_system
from gp_integration.settings import use_rangeformer


def points(m, dtype=torch.float64, dim=3, batch=()):
    return data(m, dtype, dim, batch, seed=99)[0]


@pytest.fixture
def builds(monkeypatch):
    """Counts preconditioners built."""
    count = []
    original = rf.build_preconditioner

    def build(*args, **kwargs):
        count.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(rf, "build_preconditioner", build)
    return count


@pytest.fixture
def no_factor(monkeypatch):
    """Solve iteratively however many test points there are."""
    monkeypatch.setattr(request, "is_cheaper", lambda operator, num_columns: False)


@pytest.mark.parametrize("fast_pred_var", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mean_and_variance(dtype, fast_pred_var, no_factor):
    model, x = exact_gp(1200, dtype), points(60, dtype)
    with torch.no_grad():
        with by_cholesky():
            exact = predict(exact_gp(1200), points(60))
            mean, covariance = exact.mean, exact.covariance_matrix
        with use_rangeformer() as recorder, gpytorch.settings.fast_pred_var(fast_pred_var):
            out = predict(model, x)
            our_mean, our_covariance, our_variance = out.mean, out.covariance_matrix, out.variance
    report = recorder.report()
    assert report.num_calls("mean") == report.num_calls("covariance") == 1
    assert report.worst_residual() <= 1e-4
    assert our_mean.dtype == our_covariance.dtype == dtype
    single = dtype == torch.float32
    assert (our_mean - mean).abs().max() <= (2e-3 if single else 1e-3)
    relative = (our_variance - covariance.diagonal()) / covariance.diagonal()
    assert relative.abs().max() <= (1e-3 if single else 1e-6)
    assert (our_covariance - covariance).abs().max() <= (1e-4 if single else 1e-7)


def test_from_many_test_points_on_a_factor_is_cheaper(monkeypatch):
    built = []
    original = rf.build_preconditioner

    def build(*args, **kwargs):
        built.append(original(*args, **kwargs))
        return built[-1]

    monkeypatch.setattr(rf, "build_preconditioner", build)
    model = exact_gp(900)
    with torch.no_grad(), use_rangeformer() as recorder:
        predict(model, points(40))
        for _ in range(3):
            ours = model(points(40)).covariance_matrix
    assert [P.is_exact for P in built] == [False, True], "all test points so far are counted together"
    assert recorder.report().worst_residual("covariance") <= 1e-4
    with torch.no_grad(), by_cholesky():
        assert torch.allclose(ours, predict(model, points(40)).covariance_matrix, atol=1e-9)


def test_variances_are_never_below_the_truth_however_loose_the_solve(no_factor):
    model, x = exact_gp(1000, noise=1e-4), points(80)
    with torch.no_grad():
        with by_cholesky():
            truth = predict(model, x).covariance_matrix
        with use_rangeformer(eval_rtol=0.5, num_columns=4, num_neighbors=1):
            ours = predict(model, x).covariance_matrix
    excess = ours - truth
    assert excess.norm() > 1e-6 * truth.norm(), "the solve was meant to be loose"
    assert torch.linalg.eigvalsh(excess).min() >= -1e-9
    assert torch.linalg.eigvalsh(ours).min() > 0


def test_one_preconditioner_serves_all_predictions(builds):
    model, x = exact_gp(900), points(10)
    with torch.no_grad(), use_rangeformer() as recorder:
        out = predict(model, x)
        for _ in range(3):
            out = model(x + 0.1)
        _ = out.variance
    assert len(builds) == 1
    assert recorder.report().num_calls("mean") == 1
    assert recorder.report().num_calls("covariance") == 4


def test_the_preconditioner_survives_the_block_and_dies_with_the_strategy(builds):
    model, x = exact_gp(900), points(20)
    with torch.no_grad():
        with use_rangeformer():
            predict(model, x)
        with use_rangeformer():
            model(x)
        assert len(builds) == 1
        with use_rangeformer(seed=7):
            model(x)
        assert len(builds) == 2, "other options, other preconditioner"
        model.train()
        import gc

        gc.collect()
        assert len(training_system._systems) == 0


def test_retraining_is_noticed():
    model, x = exact_gp(900), points(20)
    with torch.no_grad(), use_rangeformer():
        predict(model, x)
        model.covar_module.base_kernel.lengthscale = 0.8
        ours = predict(model, x)
    with torch.no_grad(), by_cholesky():
        truth = predict(model, x)
        assert torch.allclose(ours.mean, truth.mean, atol=1e-3)
        assert torch.allclose(ours.variance, truth.variance, rtol=1e-5)


def test_hyperparameters_changed_in_eval_mode_are_noticed():
    model, x = exact_gp(900), points(20)
    with torch.no_grad(), use_rangeformer():
        predict(model, x)
        model.likelihood.noise = 0.5
        model.covar_module.base_kernel.lengthscale = 0.8
        ours = model(x)
    with torch.no_grad(), by_cholesky():
        truth = predict(model, x)
        assert torch.allclose(ours.mean, truth.mean, atol=1e-3)
        assert torch.allclose(ours.variance, truth.variance, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5, 3), (2, 4, 1, 3)])
def test_batches_of_test_points_are_columns_of_one_solve(shape):
    model = exact_gp(900)
    x = points(torch.Size(shape[:-1]).numel()).reshape(shape)
    with torch.no_grad():
        with by_cholesky():
            truth = predict(model, x)
            mean, covariance = truth.mean, truth.covariance_matrix
        with use_rangeformer() as recorder:
            ours = predict(model, x)
            assert torch.allclose(ours.mean, mean, atol=1e-3)
            assert torch.allclose(ours.covariance_matrix, covariance, atol=1e-7)
    assert recorder.report().num_calls("covariance") == 1


def test_batch_of_gps():
    model, x = exact_gp(850, batch=(2,)), points(10, batch=(2,))
    model.likelihood.noise = torch.tensor([[0.02], [0.1]], dtype=torch.float64)
    with torch.no_grad():
        with by_cholesky():
            truth = predict(model, x)
            mean, covariance = truth.mean, truth.covariance_matrix
        with use_rangeformer():
            ours = predict(model, x)
    assert torch.allclose(ours.mean, mean, atol=1e-3)
    assert torch.allclose(ours.covariance_matrix, covariance, atol=1e-7)


def test_fixed_noise():
    model, x = exact_gp(900, fixed_noise=True), points(10)
    with torch.no_grad():
        with by_cholesky():
            truth = predict(model, x)
            mean, variance = truth.mean, truth.variance
        with use_rangeformer():
            ours = predict(model, x)
            assert torch.allclose(ours.mean, mean, atol=1e-3)
            assert torch.allclose(ours.variance, variance, rtol=1e-5)
            model.likelihood.noise = torch.full((900,), 0.3, dtype=torch.float64)
            changed = model(x).mean
    assert (changed - ours.mean).abs().max() > 1e-3, "changed noise must be noticed"


@pytest.mark.parametrize("detach", [True, False])
def test_gradients_with_respect_to_test_points_and_hyperparameters(detach):
    results = []
    for context in (by_cholesky(), use_rangeformer(eval_rtol=1e-7)):
        model = exact_gp(850)
        x = points(12).requires_grad_(True)
        with context, gpytorch.settings.detach_test_caches(detach):
            out = predict(model, x)
            value = (out.mean * torch.linspace(-1, 1, 12)).sum() + out.variance.log().sum()
            value = value + out.covariance_matrix[0, 1]
            value.backward()
        parameters = torch.cat([torch.zeros(1) if p.grad is None else p.grad.flatten() for p in model.parameters()])
        # what GPyTorch leaves of a hyperparameter's gradient when caches are detached is no derivative
        results.append((value.detach(), x.grad) + (() if detach else (parameters,)))
    for truth, ours in zip(*results, strict=True):
        assert torch.allclose(ours, truth, rtol=1e-4, atol=1e-4 * float(truth.abs().max()))


def test_graph_carrying_predictions_may_be_repeated(builds):
    model, x = exact_gp(850), points(5)
    with use_rangeformer() as recorder, gpytorch.settings.detach_test_caches(False):
        predict(model, x)
        for _ in range(2):
            (model(x).mean.sum() + model(x).variance.sum()).backward()
    assert len(builds) == 1
    assert recorder.report().num_calls("mean (backward)") == 2


def test_many_test_points_stay_lazy(monkeypatch, no_factor):
    model, x = exact_gp(900), points(40)
    with torch.no_grad():
        with by_cholesky():
            truth = predict(model, x).covariance_matrix
        monkeypatch.setattr(prediction, "_DENSE_TEST_POINTS", 10)
        monkeypatch.setattr(prediction, "_BLOCK_COLUMNS", 16)
        with use_rangeformer() as recorder, gpytorch.settings.max_eager_kernel_size(1):
            ours = predict(model, x)
    assert recorder.report().num_calls("covariance") == 3
    assert torch.allclose(ours.variance, truth.diagonal(), rtol=1e-6)
    assert torch.allclose(ours.covariance_matrix, truth, atol=1e-8)


def test_missing_observations():
    model, x = exact_gp(900), points(10)
    targets = model.train_targets.clone()
    targets[::20] = torch.nan
    model.set_train_data(targets=targets, strict=False)
    with torch.no_grad(), gpytorch.settings.observation_nan_policy("mask"):
        with by_cholesky():
            truth = predict(model, x).mean
        with use_rangeformer() as recorder:
            ours = predict(model, x).mean
    assert recorder.report().calls[0].size == 855
    assert torch.allclose(ours, truth, atol=1e-3)


def test_skipped_variances_are_skipped():
    with torch.no_grad(), use_rangeformer() as recorder, gpytorch.settings.skip_posterior_variances():
        out = predict(exact_gp(850), points(5))
    assert recorder.report().num_calls("covariance") == 0
    assert out.mean.isfinite().all()


def test_a_used_model_is_copied_and_pickled_like_any_other():
    model, x = exact_gp(850), points(5)
    with torch.no_grad(), use_rangeformer():
        out = predict(model, x)
        copied = copy.deepcopy(model)(x)
        model.train()
        restored = pickle.loads(pickle.dumps(model.state_dict()))
        covariance = pickle.loads(pickle.dumps(out.lazy_covariance_matrix))
    assert torch.allclose(copied.mean, out.mean)
    assert restored.keys() == model.state_dict().keys()
    assert torch.equal(covariance.to_dense(), out.covariance_matrix)


def test_a_used_model_pickles_whole():
    model, x = exact_gp(850), points(5)
    with torch.no_grad(), use_rangeformer():
        mean = predict(model, x).mean
        model.prediction_strategy = None
        restored = pickle.loads(pickle.dumps(model))
        assert torch.allclose(restored(x).mean, mean)


def test_report_prints():
    with torch.no_grad(), use_rangeformer():
        predict(exact_gp(850), points(5))
    assert "covariance" in str(settings.last_report())


def gradients_of_means(model, x):
    """Of the sum of predictive means, in the training inputs and in the length-scales."""
    inputs = model.train_inputs[0].detach().clone().requires_grad_()
    model.set_train_data(inputs=inputs, strict=False)
    model.train()
    with gpytorch.settings.detach_test_caches(False):
        total = predict(model, x).mean.sum()
    return torch.autograd.grad(total, [inputs, model.covar_module.base_kernel.raw_lengthscale])


@pytest.mark.parametrize("shift", [0.0, 24.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_gradients_through_predictions_where_targets_are_far_from_the_prior_mean(dtype, shift):
    def model_in(precision):
        model = exact_gp(900, dtype=precision, noise=1e-2)
        model.mean_module = gpytorch.means.ZeroMean()
        model.set_train_data(targets=model.train_targets + shift)
        return model

    ours, exact, x = model_in(dtype), model_in(torch.float64), points(20)
    exact.set_train_data(ours.train_inputs[0].double(), ours.train_targets.double(), strict=False)
    with by_cholesky():
        truth = gradients_of_means(exact, x)
    with use_rangeformer() as recorder:
        found = gradients_of_means(ours, x.to(dtype))
    for one, other in zip(found, truth, strict=True):
        assert (one.double() - other).norm() <= 5e-3 * other.norm()
    calls = {call.purpose: call for call in recorder.report().calls}
    assert calls["mean"].error_bound <= 1.1e-3
    assert calls["mean (backward)"].error_bound <= 1.1e-3


def test_gradients_that_are_not_as_accurate_as_they_should_be_are_said(monkeypatch):
    monkeypatch.setattr(fallback, "_GRADIENT_ERROR", 1e-12)
    with (
        use_rangeformer(),
        pytest.warns(rf.ConvergenceWarning, match="solutions behind the gradient of 'mean' have relative errors of up"),
    ):
        gradients_of_means(exact_gp(850), points(5))


@pytest.mark.parametrize("what", ["mean", "variance"])
def test_hessians_in_a_test_point(what):
    model = exact_gp(850)
    model.covar_module.base_kernel = gpytorch.kernels.RBFKernel().double()
    model.covar_module.base_kernel.lengthscale = 0.4
    point = points(1)

    def hessian():
        model.train()
        model.eval()
        model(point)
        return torch.autograd.functional.hessian(lambda x: getattr(model(x), what).sum(), point)

    with by_cholesky():
        truth = hessian()
    with use_rangeformer(eval_rtol=1e-7) as recorder:
        ours = hessian()
    torch.testing.assert_close(ours, truth, rtol=1e-3, atol=1e-4 * float(truth.abs().max()))
    assert recorder.report().fallbacks == ()
