"""The exact Gaussian process under study, its training step, its prediction, and the float64 truth they are held against."""

import json
import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import gpytorch
import torch
from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel
from torch import Tensor

from experiments.datasets import Split

KERNELS = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5, "rbf": None}


class ExactGP(gpytorch.models.ExactGP):
    """A constant mean and a scaled kernel with one length-scale per feature; nothing in it knows of RangeFormer."""

    def __init__(self, split: Split, kernel: str):
        """Start from GPyTorch's initial values: length-scales, output scale and noise 0.693."""
        super().__init__(split.train_x, split.train_y, gpytorch.likelihoods.GaussianLikelihood())
        num_features, nu = split.train_x.shape[-1], KERNELS[kernel]
        base = RBFKernel(ard_num_dims=num_features) if nu is None else MaternKernel(nu, ard_num_dims=num_features)
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = ScaleKernel(base)
        self.to(split.train_x)

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        """The prior at `x`, (n, d)."""
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


@dataclass(frozen=True)
class Truth:
    """Loss and gradient in float64; `scale` is the yardstick of a gradient error."""

    loss: float
    gradient: Tensor  # (num_parameters,)
    scale: float  # sum of the norms of the gradients of the quadratic form and of the log-determinant

    def gradient_error(self, gradient: Tensor) -> float:
        """Near an optimum the two parts cancel, so the norm of their sum would be no yardstick."""
        return float((gradient.to(self.gradient) - self.gradient).norm()) / self.scale


def set_hyperparameters(model: ExactGP, path: Path, lengthscale_factor: float = 1.0, noise_factor: float = 1.0) -> None:
    """Read `noise_std`, `signal_std` and `lengthscales` from JSON; the factors multiply length-scales and noise variance."""
    values = json.loads(path.read_text())
    model.covar_module.base_kernel.lengthscale = lengthscale_factor * torch.tensor(values["lengthscales"])
    model.covar_module.outputscale = values["signal_std"] ** 2
    model.likelihood.noise = noise_factor * values["noise_std"] ** 2
    model.mean_module.constant = 0.0


def training_step(model: ExactGP) -> Tensor:
    """Loss per data point, its gradient left in the parameters: all that an optimiser's step needs."""
    model.train()
    model.zero_grad()
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    loss = -objective(model(*model.train_inputs), model.train_targets)
    loss.backward()
    return loss.detach()


def gradient(model: ExactGP) -> Tensor:
    """All gradients in one vector, (num_parameters,)."""
    return torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])


@torch.no_grad()
def predict(model: ExactGP, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of a new observation at each row of `x`, (m,) each."""
    model.eval()
    prediction = model.likelihood(model(x))
    return prediction.mean, prediction.variance


def rmse_and_nll(mean: Tensor, variance: Tensor, target: Tensor) -> tuple[float, float]:
    """Test error and mean negative log density, both in standardised units. A negative variance makes the second NaN."""
    squared = (mean - target).double() ** 2
    nll = 0.5 * (squared / variance.double() + torch.log(2 * math.pi * variance.double()))
    return float(squared.mean().sqrt()), float(nll.mean())


def truth(model: ExactGP) -> Truth:
    """Loss and gradient at the model's hyperparameters by a dense float64 Cholesky factor.

    The derivatives are written out, d(r^T A^-1 r) = 2 a^T dr - a^T dA a with a = A^-1 r, and d log det A = tr(A^-1 dA),
    which needs the inverse once and keeps the two parts apart.
    """
    model = deepcopy(model).double().train()
    marginal = model.likelihood(model(*model.train_inputs))
    residual = model.train_targets - marginal.mean
    covariance = marginal.lazy_covariance_matrix.to_dense()
    factor = torch.linalg.cholesky(covariance.detach())
    inverse = torch.cholesky_inverse(factor)
    solution = inverse @ residual.detach()

    n, parameters = len(residual), list(model.parameters())
    quadratic = 2 * solution @ residual - solution @ covariance @ solution
    logdet = (inverse * covariance).sum()
    parts = [
        torch.cat([part.reshape(-1) for part in torch.autograd.grad(value, parameters, **keep)]) / (2 * n)
        for value, keep in (
            (quadratic, {"retain_graph": True, "materialize_grads": True}),
            (logdet, {"materialize_grads": True, "allow_unused": True}),
        )
    ]
    loss = (residual @ solution + 2 * factor.diagonal().log().sum() + n * math.log(2 * math.pi)) / (2 * n)
    return Truth(float(loss), sum(parts), sum(float(part.norm()) for part in parts))
