"""Models conditioned on further observations: means, covariances and gradients against dense Cholesky in float64."""

import gpytorch
import pytest
import torch
from gp_models import data, exact_gp

from gp_integration import settings

N = 850


def cholesky_settings():
    return gpytorch.settings.max_cholesky_size(10**6)


def conditioned(model, x, y, test, **kwargs):
    """Mean and covariance at `test` of the model conditioned on (x, y)."""
    model.train()
    model.eval()
    model(test[:1])
    prediction = model.get_fantasy_model(x, y, **kwargs)(test)
    return prediction.mean, prediction.covariance_matrix


@pytest.mark.parametrize("fixed_noise", [False, True], ids=["one noise", "fixed noise"])
@pytest.mark.parametrize("kind", ["single", "targets in a batch", "inputs in a batch"])
def test_posterior_of_single_and_batch_fantasies(kind, fixed_noise):
    model = exact_gp(N, fixed_noise=fixed_noise)
    (x, y), (test, _) = data(6, seed=5), data(9, seed=7)
    if kind == "targets in a batch":
        y = torch.stack([y, y + 1, y - 1])
    if kind == "inputs in a batch":
        x, y = torch.stack([x, x + 0.1]), torch.stack([y, y + 1])
    noise = {"noise": torch.full(x.shape[:-1], 0.03, dtype=x.dtype)} if fixed_noise else {}
    with cholesky_settings():
        mean, covariance = conditioned(model, x, y, test, **noise)
    with settings.use_rangeformer(eval_rtol=1e-6) as recorder:
        ours, our_covariance = conditioned(model, x, y, test, **noise)
    torch.testing.assert_close(ours, mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(our_covariance, covariance, rtol=1e-6, atol=1e-9)
    report = recorder.report()
    assert report.num_calls("fantasies") == 1
    assert {call.size for call in report.calls} == {N}, "all solves are with the training matrix"
    assert report.fallbacks == ()
    assert report.left_alone == {}


def test_fantasies_of_fantasies():
    model = exact_gp(N)
    (x, y), (more, targets), (test, _) = data(6, seed=5), data(3, seed=9), data(9, seed=7)

    def twice():
        model.train()
        model.eval()
        model(test[:1])
        first = model.get_fantasy_model(x, y)
        first(test[:1])
        return first.get_fantasy_model(more, targets)(test)

    with cholesky_settings():
        truth = twice()
    with settings.use_rangeformer(eval_rtol=1e-6) as recorder:
        ours = twice()
        torch.testing.assert_close(ours.covariance_matrix, truth.covariance_matrix, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(ours.mean, truth.mean, rtol=0, atol=1e-5)
    assert recorder.report().num_calls("fantasies") == 2


def test_gradients_with_respect_to_the_fantasies():
    model = exact_gp(N)
    (x, y), (test, _) = data(4, seed=5), data(5, seed=7)

    def gradients():
        inputs, targets = x.clone().requires_grad_(), y.clone().requires_grad_()
        with gpytorch.settings.detach_test_caches(False):
            mean, covariance = conditioned(model, inputs, targets, test)
            value = mean.square().sum() + covariance.diagonal().log().sum()
        return torch.autograd.grad(value, (inputs, targets))

    with cholesky_settings():
        truth = gradients()
    with settings.use_rangeformer(eval_rtol=1e-7):
        ours = gradients()
    for found, known in zip(ours, truth, strict=True):
        torch.testing.assert_close(found, known, rtol=1e-3, atol=1e-4 * float(known.abs().max()))


def test_hyperparameters_that_change_afterwards_are_noticed():
    model = exact_gp(N)
    (x, y), (test, _) = data(4, seed=5), data(5, seed=7)
    with settings.use_rangeformer(eval_rtol=1e-6):
        model.eval()
        model(test[:1])
        fantasy = model.get_fantasy_model(x, y)
        before = fantasy(test).variance
        fantasy.likelihood.noise = 0.1
        after = fantasy(test).variance
    assert (after > 1.05 * before).all()
    with cholesky_settings():
        fantasy.train()
        fantasy.eval()
        torch.testing.assert_close(after, fantasy(test).variance, rtol=1e-6, atol=1e-9)


def test_small_models_stay_with_cholesky():
    model = exact_gp(60)
    (x, y), (test, _) = data(4, seed=5), data(5, seed=7)
    with settings.use_rangeformer() as recorder:
        ours = conditioned(model, x, y, test)
    for found, known in zip(ours, conditioned(model, x, y, test), strict=True):
        torch.testing.assert_close(found, known)
    assert set(recorder.report().left_alone) <= {"matrices small enough for Cholesky", "fantasy models"}
