"""The training loss and its gradient against float64 Cholesky."""

import pytest
import torch
from gp_models import by_cholesky, data, exact_gp, loss_of, truth, value_and_gradient

from gp_integration import settings

# (loss, single-seed gradient, mean gradient), relative; the gradient against the sum of its halves' norms
BOUNDS = {torch.float64: (1e-3, 1e-2, 3e-3), torch.float32: (5e-3, 2e-2, 1e-2)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [801, 1999, 2001])
def test_loss_and_gradient(n, dtype):
    model = exact_gp(n, dtype)
    loss, gradient, scale = truth(model)
    with settings.use_rangeformer():
        ours, our_gradient = value_and_gradient(model)
    assert settings.last_report().num_calls("log_prob") == 1
    assert not settings.last_report().fallbacks
    loss_bound, gradient_bound, _ = BOUNDS[dtype]
    assert (ours - loss).abs() <= loss_bound * loss.abs()
    assert (our_gradient - gradient).norm() <= gradient_bound * scale


def test_gradient_is_unbiased_over_seeds():
    model = exact_gp(900)
    _, gradient, scale = truth(model)
    draws = []
    for seed in range(24):
        with settings.use_rangeformer(seed=seed, rtol=1e-4):
            draws.append(value_and_gradient(model)[1])
    draws = torch.stack(draws)
    error = draws.mean(0) - gradient
    standard_error = draws.std(0) / len(draws) ** 0.5
    z = error / standard_error.clamp_min(1e-6 * scale)
    assert z.abs().max() < 4, f"z-scores {z.tolist()}"
    assert error.norm() <= 3e-3 * scale


def test_batch_of_gps_equals_a_loop():
    model = exact_gp(850, batch=(2,))
    model.likelihood.noise = torch.tensor([[0.02], [0.1]], dtype=torch.float64)
    loss, gradient, scale = truth(model)
    with settings.use_rangeformer():
        ours, our_gradient = value_and_gradient(model)
    assert ours.shape == (2,)
    assert torch.allclose(ours, loss, rtol=1e-3)
    assert (our_gradient - gradient).norm() <= 1e-2 * scale


def test_fixed_noise():
    model = exact_gp(900, fixed_noise=True)
    loss, gradient, scale = truth(model)
    with settings.use_rangeformer():
        ours, our_gradient = value_and_gradient(model)
    assert settings.last_report().num_calls("log_prob") == 1
    assert (ours - loss).abs() <= 1e-3 * loss.abs()
    assert (our_gradient - gradient).norm() <= 1e-2 * scale


def test_many_targets_share_one_matrix():
    model = exact_gp(820)
    targets = torch.stack([model.train_targets, model.train_targets.roll(1), -model.train_targets])
    model.train()
    with by_cholesky():
        expected = model.likelihood(model(*model.train_inputs)).log_prob(targets)
    with settings.use_rangeformer(rtol=1e-5):
        values = model.likelihood(model(*model.train_inputs)).log_prob(targets)
    assert values.shape == (3,)
    assert torch.allclose(values, expected, rtol=1e-3)


def test_backward_outside_the_block():
    model = exact_gp(810)
    with settings.use_rangeformer():
        inside = value_and_gradient(model)[1]
    model.zero_grad()
    with settings.use_rangeformer():
        loss = loss_of(model)
    loss.backward()
    outside = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.equal(inside, outside)


def test_two_models_in_one_block():
    first, second = exact_gp(810, seed=1), exact_gp(830, torch.float32, seed=2)
    with settings.use_rangeformer() as recorder:
        values = [value_and_gradient(model) for model in (first, second)]
    assert recorder.report().num_calls("log_prob") == 2
    for model, (loss, gradient) in zip((first, second), values, strict=True):
        true_loss, true_gradient, scale = truth(model)
        loss_bound, gradient_bound, _ = BOUNDS[gradient_dtype(model)]
        assert (loss - true_loss).abs() <= loss_bound * true_loss.abs()
        assert (gradient - true_gradient).norm() <= gradient_bound * scale


def gradient_dtype(model):
    return model.train_targets.dtype


def test_the_loss_is_deterministic_by_default_and_random_if_asked():
    model = exact_gp(810)
    state = torch.get_rng_state()
    with settings.use_rangeformer():
        first, second = loss_of(model), loss_of(model)
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state()), "the global generator must not move"
    with settings.use_rangeformer(seed=None):
        third, fourth = loss_of(model), loss_of(model)
    assert not torch.equal(third, fourth)


def test_training_lowers_the_loss():
    model = exact_gp(810, lengthscale=1.0, noise=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.2)
    losses = []
    with settings.use_rangeformer():
        for _ in range(4):
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("missing", [0, 40])
def test_missing_observations(missing):
    import gpytorch

    model = exact_gp(860)
    targets = model.train_targets.clone()
    targets[:missing] = torch.nan
    model.set_train_data(targets=targets, strict=False)
    with gpytorch.settings.observation_nan_policy("mask"):
        with by_cholesky():
            loss = loss_of(model)
        with settings.use_rangeformer():
            ours = loss_of(model)
            assert settings.last_report().num_calls("log_prob") == 1
    assert (ours - loss).abs() <= 1e-3 * loss.abs()


def test_small_matrices_stay_with_cholesky():
    model = exact_gp(60)
    loss = loss_of(model)
    with settings.use_rangeformer() as recorder:
        assert torch.equal(loss_of(model), loss)
    assert recorder.report().num_calls() == 0
    assert recorder.report().left_alone == {"matrices small enough for Cholesky": 1}
    with settings.use_rangeformer(min_size=0) as recorder:
        ours = loss_of(model)
    assert recorder.report().num_calls("log_prob") == 1
    assert torch.allclose(ours, loss, rtol=1e-5)


def test_second_derivatives_are_refused_not_wrong():
    model = exact_gp(810)
    with settings.use_rangeformer():
        loss = loss_of(model)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    with pytest.raises(RuntimeError, match="once, not twice"):
        torch.autograd.grad(sum(gradient.sum() for gradient in gradients), parameters)


def test_validation_of_values_is_kept():
    x, y = data(810)
    model = exact_gp(810)
    model.train()
    marginal = model.likelihood(model(x))
    marginal._validate_args = True
    with settings.use_rangeformer(), pytest.raises(ValueError, match="support|shape|size"):
        marginal.log_prob(y[:-1])


def test_the_error_of_the_gradient_is_measured_and_met_by_more_probes():
    model = exact_gp(850)
    with settings.use_rangeformer(gradient_rtol=10.0) as loose:
        value_and_gradient(model)
    (call,) = loose.report().calls
    assert 0 < call.gradient_error < 10
    wanted = call.gradient_error / 2
    with settings.use_rangeformer(gradient_rtol=wanted) as tight:
        _, gradient = value_and_gradient(model)
    calls = tight.report().calls
    assert len(calls) > 1
    assert calls[-1].gradient_error <= wanted
    _, exact, _ = truth(model)
    assert (gradient - exact).norm() <= 4 * wanted * exact.norm() + 2e-2 * exact.norm()
    with settings.use_rangeformer() as recorder:
        value_and_gradient(model)
    assert recorder.report().calls[0].gradient_error is None
