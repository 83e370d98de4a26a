"""The exact Gaussian process under study: its training step, its prediction, and the truth they are held against."""

import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import gpytorch
import torch
from gpytorch.kernels import MaternKernel, RBFKernel, ScaleKernel
from torch import Tensor

from experiments.common.datasets import Split, read_hyperparameters

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
    """Loss and gradient; `scale` is the yardstick of a gradient error."""

    loss: float
    gradient: Tensor  # (num_parameters,)
    scale: float  # sum of the norms of the gradients of the quadratic form and of the log-determinant

    def gradient_error(self, gradient: Tensor) -> float:
        """Near an optimum the two parts cancel, so the norm of their sum would be no yardstick."""
        return float((gradient.to(self.gradient) - self.gradient).norm()) / self.scale


def set_hyperparameters(model: ExactGP, path: Path, lengthscale_factor: float = 1.0, noise_factor: float = 1.0) -> None:
    """Read `noise_std`, `signal_std`, `lengthscales` from JSON; the factors multiply lengths and noise variance."""
    values = read_hyperparameters(path)
    # GPyTorch moves numbers to the parameter's device, and tensors not
    lengthscales = torch.tensor(values["lengthscales"], device=model.covar_module.base_kernel.raw_lengthscale.device)
    model.covar_module.base_kernel.lengthscale = lengthscale_factor * lengthscales
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


def score(mean: Tensor, variance: Tensor, target: Tensor) -> dict:
    """Test error, mean negative log density, and share of the targets inside the 95 % band, in standardised units.

    Approximate solves can make a variance negative; a density does not exist then, and `nll` is None.
    """
    error, variance = (mean - target).double(), variance.double()
    num_negative = int((variance <= 0).sum())
    nll = 0.5 * (error**2 / variance + torch.log(2 * math.pi * variance)).mean()
    return {
        "rmse": float(error.square().mean().sqrt()),
        "nll": None if num_negative else float(nll),
        "num_negative_variances": num_negative,
        "coverage": float((error.abs() <= 1.96 * variance.clamp_min(0).sqrt()).double().mean()),
    }


def hyperparameters(model: ExactGP) -> dict:
    """In the form `set_hyperparameters` reads."""
    return {
        "noise_std": model.likelihood.noise.item() ** 0.5,
        "signal_std": model.covar_module.outputscale.item() ** 0.5,
        "lengthscales": model.covar_module.base_kernel.lengthscale.flatten().tolist(),
    }


def truth(model: ExactGP) -> Truth:
    """Loss and gradient at the model's hyperparameters by a dense float64 Cholesky factor."""
    model = deepcopy(model).double()
    loss, *parts = _by_hand(model)
    gradients = [_gradient(part, [*model.parameters()]) for part in parts]
    return Truth(loss.item(), gradients[0] + gradients[1], sum(float(gradient.norm()) for gradient in gradients))


def training_step_by_hand(model: ExactGP) -> Tensor:
    """What `training_step` does, in the precision of the model, without GPyTorch's linear algebra."""
    model.zero_grad()
    loss, quadratic, logdet = _by_hand(model)
    (quadratic + logdet).backward()
    return loss


def _gradient(value: Tensor, parameters: list[Tensor]) -> Tensor:
    # the mean has no part in the log-determinant, hence `allow_unused`
    parts = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in parts])


def _by_hand(model: ExactGP) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and two scalars whose *gradients* are those of its quadratic form and of its log-determinant.

    With a = A^-1 r they are d(r^T A^-1 r) = 2 a^T dr - a^T dA a and d log det A = tr(A^-1 dA): one factor and one
    inverse, where autograd through the factorisation needs several products of that size.
    """
    model.train()
    marginal = model.likelihood(model(*model.train_inputs))
    residual, n = model.train_targets - marginal.mean, len(model.train_targets)
    covariance = marginal.lazy_covariance_matrix.to_dense()
    factor = torch.linalg.cholesky(covariance.detach())
    solution = torch.cholesky_solve(residual.detach()[:, None], factor)[:, 0]
    quadratic = 2 * solution @ residual - solution @ covariance @ solution
    logdet = (torch.cholesky_inverse(factor) * covariance).sum()
    loss = residual.detach() @ solution + 2 * factor.diagonal().log().sum() + n * math.log(2 * math.pi)
    return loss / (2 * n), quadratic / (2 * n), logdet / (2 * n)
