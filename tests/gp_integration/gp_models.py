"""Small exact GPs on structured synthetic data, and their float64 Cholesky truth."""

import contextlib

import gpytorch
import torch
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood, GaussianLikelihood
from gpytorch.mlls import ExactMarginalLogLikelihood


class ExactGP(gpytorch.models.ExactGP):
    def __init__(self, x, y, likelihood):
        super().__init__(x, y, likelihood)
        batch = x.shape[:-2]
        self.mean_module = gpytorch.means.ConstantMean(batch_shape=batch)
        kernel = MaternKernel(nu=1.5, ard_num_dims=x.shape[-1], batch_shape=batch)
        self.covar_module = ScaleKernel(kernel, batch_shape=batch)

    def forward(self, x):
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


def data(n, dtype=torch.float64, dim=3, batch=(), seed=0):
    """Clustered inputs and a smooth target with noise: structured, as tables are."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(12, dim, generator=generator)
    which = torch.randint(0, 12, (*batch, n), generator=generator)
    x = centres[which] + 0.15 * torch.randn(*batch, n, dim, generator=generator)
    noise = 0.1 * torch.randn(*batch, n, generator=generator)
    y = torch.sin(6 * x[..., 0]) + x[..., 1] * x[..., 2 % dim] + noise
    return x.to(dtype), y.to(dtype)


def exact_gp(n, dtype=torch.float64, dim=3, batch=(), seed=0, fixed_noise=False, lengthscale=0.3, noise=0.02):
    """A model with hyperparameters as training leaves them: short length-scales and little noise."""
    x, y = data(n, dtype, dim, batch, seed)
    if fixed_noise:
        variances = torch.linspace(0.5, 2, n, dtype=dtype).expand(*batch, n) * noise
        likelihood = FixedNoiseGaussianLikelihood(variances, batch_shape=torch.Size(batch))
    else:
        likelihood = GaussianLikelihood(batch_shape=torch.Size(batch))
        likelihood.noise = noise
    model = ExactGP(x, y, likelihood).to(dtype)
    scales = lengthscale * (1 + torch.arange(dim) / dim)
    model.covar_module.base_kernel.lengthscale = scales.expand(*batch, 1, dim)
    return model


def loss_of(model, targets=None):
    """Negative marginal log-likelihood per point."""
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    model.train()
    return -mll(model(*model.train_inputs), model.train_targets if targets is None else targets)


def gradient_of(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()]).to(torch.float64)


def value_and_gradient(model, targets=None):
    model.zero_grad()
    loss = loss_of(model, targets)
    loss.sum().backward()
    return loss.detach().to(torch.float64), gradient_of(model)


def truth(model, lengths=False):
    """Loss, gradient, and the yardstick: the norms of the gradient's two halves, added, by float64 Cholesky."""
    parameters = list(model.parameters())
    x, y = model.train_inputs[0], model.train_targets
    with lazily_off():
        covariance = model.likelihood(MultivariateNormal(model.mean_module(x), model.covar_module(x)), x)
    K = covariance.covariance_matrix.to(torch.float64)
    r = (y - model.mean_module(x)).to(torch.float64).unsqueeze(-1)
    factor = torch.linalg.cholesky(K)
    quadratic = torch.linalg.solve_triangular(factor, r, upper=False).square().sum((-1, -2))
    logdet = 2 * factor.diagonal(dim1=-1, dim2=-2).log().sum(-1)
    n = x.shape[-2]
    halves = [0.5 * quadratic / n, 0.5 * logdet / n]
    gradients = []
    for half in halves:
        parts = torch.autograd.grad(half.sum(), parameters, retain_graph=True, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, parameters, strict=True)]
        gradients.append(torch.cat([g.flatten() for g in parts]).to(torch.float64))
    loss = halves[0] + halves[1] + 0.5 * torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))
    return loss.detach(), gradients[0] + gradients[1], gradients[0].norm() + gradients[1].norm()


def lazily_off():
    return gpytorch.settings.lazily_evaluate_kernels(False)


@contextlib.contextmanager
def by_cholesky():
    """GPyTorch's exact path, whatever the size."""
    with (
        gpytorch.settings.max_cholesky_size(10**6),
        gpytorch.settings.fast_computations(False, False, False),
    ):
        yield


def predict(model, x):
    """A prediction from a model without caches."""
    model.train()
    model.eval()
    return model(x)
