"""Samples: their distribution, and which path drew them."""

import gpytorch
import pytest
import torch
from gp_models import by_cholesky, data, exact_gp, predict
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DenseLinearOperator

import rangeformer as rf
from gp_integration import sampling
from gp_integration.settings import use_rangeformer


def assert_moments(samples, mean, covariance):
    """Sample mean and covariance within five standard errors, projected on random directions and per point."""
    count = samples.shape[0]
    centred = samples.to(torch.float64) - mean.to(torch.float64)
    covariance = covariance.to(torch.float64)
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(covariance.shape[-1], 8, generator=generator, dtype=torch.float64)
    directions = torch.cat([directions, torch.eye(covariance.shape[-1], dtype=torch.float64)[:, ::37]], -1)
    variances = (directions * (covariance @ directions)).sum(-2)
    projected = centred @ directions
    z_mean = projected.mean(0) / (variances / count).sqrt()
    z_variance = (projected.square().mean(0) / variances - 1) / (2 / count) ** 0.5
    assert z_mean.abs().max() < 5
    assert z_variance.abs().max() < 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_posterior_samples(dtype):
    model, x = exact_gp(850, dtype), data(50, dtype, seed=99)[0]
    with torch.no_grad(), use_rangeformer() as recorder:
        out = predict(model, x)
        samples = out.sample(torch.Size([2000]))
        assert samples.shape == (2000, 50)
        assert samples.dtype == dtype
        assert_moments(samples, out.mean, out.covariance_matrix)
        assert recorder.report().num_calls("samples") == 1
        noisy = model.likelihood(out)
        assert_moments(noisy.sample(torch.Size([2000])), noisy.mean, noisy.covariance_matrix)
    assert recorder.report().num_calls("samples") == 2


def test_shapes_are_upstreams():
    model, x = exact_gp(850), data(6, seed=99)[0]
    with torch.no_grad(), use_rangeformer():
        out = predict(model, x.expand(4, 6, 3))
        assert out.rsample().shape == (4, 6)
        assert out.rsample(torch.Size([2, 3])).shape == (2, 3, 4, 6)
        assert out.lazy_covariance_matrix.zero_mean_mvn_samples(5).shape == (5, 4, 6)
        assert model.likelihood(out).lazy_covariance_matrix.zero_mean_mvn_samples(5).shape == (5, 4, 6)
        assert out[1].rsample().shape == (6,)


def test_base_samples_give_the_samples_cholesky_gives():
    model, x = exact_gp(850), data(6, seed=99)[0]
    base = torch.randn(3, 6, dtype=torch.float64)
    with torch.no_grad():
        with by_cholesky():
            expected = predict(model, x).rsample(torch.Size([3]), base_samples=base)
        with use_rangeformer() as recorder:
            out = predict(model, x)
            samples = out.rsample(torch.Size([3]), base_samples=base)
            again = out.rsample(torch.Size([3]), base_samples=base)
            with pytest.raises(RuntimeError, match="`base_samples` must have shape"):
                out.rsample(base_samples=base[:, :4])
    assert torch.equal(samples, again)
    assert torch.allclose(samples, expected, atol=1e-3)
    assert recorder.report().num_calls("samples") == 2


def test_prior_samples_of_a_smooth_kernel_get_jitter():
    x = torch.linspace(0, 1, 400, dtype=torch.float64)[:, None]
    kernel = gpytorch.kernels.RBFKernel().double()
    prior = MultivariateNormal(torch.zeros(400, dtype=torch.float64), kernel(x))
    with torch.no_grad(), use_rangeformer() as recorder:
        samples = prior.sample(torch.Size([1000]))
    assert_moments(samples, prior.mean, prior.covariance_matrix)
    assert "cholesky (+" in recorder.report().calls[0].method


def test_global_seed_reproduces_samples_and_fresh_ones_differ():
    model, x = exact_gp(850), data(6, seed=99)[0]
    with torch.no_grad(), use_rangeformer():
        out = predict(model, x)
        draws = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            draws.append(out.sample())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_large_covariances_are_sampled_without_a_factorisation(monkeypatch):
    monkeypatch.setattr(sampling, "CHOLESKY_SIZE", 100)
    calls = []
    original = rf.sample_gaussian
    monkeypatch.setattr(rf, "sample_gaussian", lambda *a, **k: calls.append(1) or original(*a, **k))
    model = exact_gp(850, noise=0.1)
    model.train()
    marginal = model.likelihood(model(*model.train_inputs))
    with torch.no_grad(), use_rangeformer() as recorder:
        samples = marginal.sample(torch.Size([600]))
        torch.manual_seed(0)
        first = marginal.sample()
        second = marginal.sample()
    assert len(calls) == 3
    assert not torch.equal(first, second)
    assert recorder.report().calls[0].method == "krylov"
    assert_moments(samples, marginal.mean, marginal.covariance_matrix)


def test_samples_are_reparameterised():
    model, x = exact_gp(850), data(6, seed=99)[0]
    gradients = []
    for context in (by_cholesky(), use_rangeformer()):
        points = x.clone().requires_grad_(True)
        with context:
            out = predict(model, points)
            base = torch.linspace(-1, 1, 6, dtype=torch.float64).expand(2, 6)
            out.rsample(torch.Size([2]), base_samples=base).square().sum().backward()
        gradients.append(points.grad)
    assert torch.allclose(gradients[1], gradients[0], rtol=1e-2, atol=1e-3)


def test_an_indefinite_covariance_is_an_error():
    matrix = torch.tensor([[1.0, 2.0, 0], [2.0, 1.0, 0], [0, 0, 1.0]])
    indefinite = MultivariateNormal(torch.zeros(3), DenseLinearOperator(matrix))
    with use_rangeformer(), pytest.raises(RuntimeError, match="not positive semi-definite"):
        indefinite.sample()
