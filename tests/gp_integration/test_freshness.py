"""Predictions follow the model: whatever changes between two of them, the second is that of the model as it is."""

import gpytorch
import pytest
import torch
from gp_models import data, exact_gp

from gp_integration import settings

N = 850
X, _ = data(7, seed=3)


class DeepKernelGP(gpytorch.models.ExactGP):
    def __init__(self, x, y):
        super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood())
        self.features = torch.nn.Sequential(torch.nn.Linear(x.shape[-1], 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
        self.mean_module, self.covar_module = gpytorch.means.ConstantMean(), gpytorch.kernels.RBFKernel()

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(self.features(x)))


def plain():
    return exact_gp(N)


def deep():
    torch.manual_seed(0)
    return DeepKernelGP(*data(N)).double()


def load(model):
    state = {name: value + 0.3 for name, value in model.state_dict().items() if "bound" not in name}
    model.load_state_dict(state, strict=False)


def shift_targets(model):
    model.train_targets += 1


def shift_inputs(model):
    model.train_inputs[0][:, 0] *= 1.3


CHANGES = {
    "mean": (plain, lambda m: m.mean_module.constant.data.fill_(3.0)),
    "length-scale": (plain, lambda m: m.covar_module.base_kernel.raw_lengthscale.data.add_(0.5)),
    "noise": (plain, lambda m: m.likelihood.initialize(noise=0.3)),
    "state dict": (plain, load),
    "targets in place": (plain, shift_targets),
    "inputs in place": (plain, shift_inputs),
    "new targets": (plain, lambda m: m.set_train_data(targets=m.train_targets + 2)),
    "new data": (plain, lambda m: m.set_train_data(*data(N - 20, seed=9), strict=False)),
    "another kernel": (plain, lambda m: setattr(m, "covar_module", gpytorch.kernels.RBFKernel().double())),
    "another mean": (plain, lambda m: setattr(m, "mean_module", gpytorch.means.LinearMean(3).double())),
    "features": (deep, lambda m: m.features[0].weight.data.mul_(1.5)),
    "deep mean": (deep, lambda m: m.mean_module.constant.data.fill_(3.0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_second_prediction_is_that_of_the_changed_model(name):
    make, change = CHANGES[name]
    model = make().eval()
    with settings.use_rangeformer(eval_rtol=1e-7) as recorder, torch.no_grad():
        before = model(X)
        first = before.mean, before.variance
        change(model)
        after = model(X)
        ours = after.mean, after.variance
    assert recorder.report().num_calls("mean") == 2
    with gpytorch.settings.max_cholesky_size(10**6), torch.no_grad():
        model.train()
        model.eval()
        truth = model(X)
    torch.testing.assert_close(ours[0], truth.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours[1], truth.variance, rtol=1e-5, atol=1e-8)
    assert not torch.allclose(ours[0], first[0], atol=1e-3), "the change must matter"


def test_nothing_is_solved_twice_while_nothing_changes():
    model = plain().eval()
    with settings.use_rangeformer() as recorder, torch.no_grad():
        strategies = set()
        for _ in range(3):
            model(X)
            strategies.add(id(model.prediction_strategy))
    assert recorder.report().num_calls("mean") == 1
    assert len(strategies) == 1
