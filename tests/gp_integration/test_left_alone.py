"""What we cannot speed up runs exactly as outside, and a warning says so once."""

import gpytorch
import pytest
import torch
from gp_models import ExactGP, data, exact_gp, loss_of, value_and_gradient
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator

from gp_integration import LeftAloneWarning
from gp_integration.settings import use_rangeformer

N = 830


class SGPR(ExactGP):
    def __init__(self, x, y, likelihood):
        super().__init__(x, y, likelihood)
        self.covar_module = gpytorch.kernels.InducingPointKernel(self.covar_module, x[:40].clone(), likelihood)


class Kronecker(gpytorch.models.ExactGP):
    def __init__(self, x, y, likelihood):
        super().__init__(x, y, likelihood)
        self.mean_module = gpytorch.means.MultitaskMean(gpytorch.means.ConstantMean(), num_tasks=2)
        self.covar_module = gpytorch.kernels.MultitaskKernel(gpytorch.kernels.MaternKernel(1.5), num_tasks=2, rank=1)

    def forward(self, x):
        return MultitaskMultivariateNormal(self.mean_module(x), self.covar_module(x))


class SVGP(gpytorch.models.ApproximateGP):
    def __init__(self, points):
        distribution = gpytorch.variational.CholeskyVariationalDistribution(points.shape[0])
        super().__init__(gpytorch.variational.VariationalStrategy(self, points, distribution))
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(1.5))

    def forward(self, x):
        return MultivariateNormal(self.mean_module(x), self.covar_module(x))


def run_exact(model):
    """A training step, a prediction and a sample of an exact (or SGPR, or multitask) model."""
    torch.manual_seed(1)
    loss, gradient = value_and_gradient(model)
    model.train()
    model.eval()
    torch.manual_seed(2)
    with torch.no_grad():
        out = model(data(20, seed=8)[0])
        return [loss, gradient, out.mean, out.variance, out.sample()]


def run_svgp(model):
    x, y = data(N)
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    mll = gpytorch.mlls.VariationalELBO(likelihood, model, num_data=N)
    model.train()
    model.zero_grad()
    torch.manual_seed(1)
    loss = -mll(model(x), y)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.eval()
    with torch.no_grad():
        out = model(data(20, seed=8)[0])
        return [loss.detach(), gradient, out.mean, out.variance, out.sample()]


def sgpr():
    x, y = data(N)
    return SGPR(x, y, gpytorch.likelihoods.GaussianLikelihood()).double()


def kronecker():
    x, y = data(N)
    likelihood = gpytorch.likelihoods.MultitaskGaussianLikelihood(num_tasks=2)
    torch.manual_seed(0)
    return Kronecker(x, torch.stack([y, -y + x[:, 0]], -1), likelihood).double()


def svgp():
    torch.manual_seed(0)
    return SVGP(data(30)[0]).double()


# torch 2.13 warns about the sparse tensors linear_operator builds for these models, in and out of blocks
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize(
    ("make", "run", "kind"),
    [
        (sgpr, run_exact, "SGPR"),
        (kronecker, run_exact, "Kronecker multitask"),
        (svgp, run_svgp, "SVGP"),
    ],
)
def test_bit_identical_and_said_once(make, run, kind, recwarn):
    expected = run(make())
    recwarn.clear()

    def twice():
        return run(make()), run(make())

    with pytest.warns(LeftAloneWarning, match=kind) as caught, use_rangeformer() as recorder:
        actual, _ = twice()
    assert [kind in str(w.message) for w in caught].count(True) == 1
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)
    assert recorder.report().num_calls() == 0
    assert sum(recorder.report().left_alone.values()) > 1


# GPyTorch's own CG fails in float16, in and out of blocks
@pytest.mark.filterwarnings("ignore:CG terminated")
def test_half_precision_is_left_alone():
    diagonal = DiagLinearOperator(torch.ones(900, dtype=torch.float16))
    matrix = DenseLinearOperator(torch.eye(900, dtype=torch.float16)) + diagonal
    with pytest.warns(LeftAloneWarning, match="matrices of torch.float16"), use_rangeformer() as recorder:
        matrix.solve(torch.ones(900, 1, dtype=torch.float16))
    assert recorder.report().num_calls() == 0


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_hadamard_multitask_is_an_exact_gp_like_any_other():
    class Hadamard(ExactGP):
        def __init__(self, x, y, likelihood):
            super().__init__(x, y, likelihood)
            self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(1.5, ard_num_dims=3))
            self.task = gpytorch.kernels.IndexKernel(num_tasks=2, rank=1)

        def forward(self, x):
            covariance = self.covar_module(x[..., :-1]).mul(self.task(x[..., -1:].long()))
            return MultivariateNormal(self.mean_module(x), covariance)

    x, y = data(N)
    x = torch.cat([x, (torch.arange(N) % 2).double()[:, None]], -1)
    model = Hadamard(x, y, gpytorch.likelihoods.GaussianLikelihood()).double()
    with gpytorch.settings.max_cholesky_size(10**6):
        expected = loss_of(model)
    with use_rangeformer() as recorder:
        ours = loss_of(model)
    assert recorder.report().num_calls("log_prob") == 1
    assert torch.allclose(ours, expected, atol=2e-3)


def test_sums_and_products_of_kernels_are_ours():
    model = exact_gp(N)
    base = model.covar_module
    linear = gpytorch.kernels.ScaleKernel(gpytorch.kernels.LinearKernel()).double()
    model.covar_module = base + linear + base * gpytorch.kernels.PeriodicKernel().double()
    with gpytorch.settings.max_cholesky_size(10**6):
        expected = loss_of(model)
    with use_rangeformer() as recorder:
        ours = loss_of(model)
    assert recorder.report().num_calls("log_prob") == 1
    assert torch.allclose(ours, expected, atol=2e-3)
