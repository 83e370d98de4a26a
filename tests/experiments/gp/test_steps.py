import json

import gpytorch
import pytest
import torch

from experiments.common import datasets
from experiments.gp import model as gp
from experiments.gp.methods import METHODS


def problem(n: int = 120, kernel: str = "matern32") -> gp.ExactGP:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    y = torch.sin(x.sum(dim=1)) + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)
    return gp.ExactGP(datasets.Split(x, y, x[:10], y[:10], 0.0, 1.0), kernel)


@pytest.mark.parametrize("kernel", list(gp.KERNELS))
def test_truth_is_what_gpytorch_computes_by_cholesky(kernel):
    model = problem(kernel=kernel)
    truth = gp.truth(model)
    with gpytorch.settings.max_cholesky_size(10**9):
        loss = gp.training_step(model)
    assert float(loss) == pytest.approx(truth.loss, rel=1e-12)
    # exp(-d) has no derivative at d = 0, where GPyTorch's distance of a point to itself is rounding error
    assert truth.gradient_error(gp.gradient(model)) < (1e-7 if kernel == "matern12" else 1e-12)


def test_by_hand_is_the_same_step():
    model = problem()
    truth = gp.truth(model)
    loss = gp.training_step_by_hand(model)
    assert float(loss) == pytest.approx(truth.loss, rel=1e-12)
    assert truth.gradient_error(gp.gradient(model)) < 1e-12


def test_gradient_error_is_relative_to_the_two_parts():
    truth = gp.Truth(loss=0.0, gradient=torch.tensor([1.0, 0.0]), scale=4.0)
    assert truth.gradient_error(torch.tensor([1.0, 2.0])) == 0.5


def test_truth_leaves_the_model_alone():
    model = problem().float()
    gp.truth(model)
    assert all(parameter.dtype == torch.float32 and parameter.grad is None for parameter in model.parameters())


def test_hyperparameters_return_as_they_were_set(tmp_path):
    model, path = problem(), tmp_path / "values.json"
    values = {"noise_std": 0.3, "signal_std": 0.7, "lengthscales": [0.5, 1.0, 2.0]}
    path.write_text(json.dumps(values))
    gp.set_hyperparameters(model, path)
    assert gp.hyperparameters(model) == {name: pytest.approx(value, rel=1e-6) for name, value in values.items()}
    gp.set_hyperparameters(model, path, lengthscale_factor=1.5, noise_factor=2.0)
    changed = gp.hyperparameters(model)
    assert changed["lengthscales"] == pytest.approx([0.75, 1.5, 3.0], rel=1e-6)
    assert changed["noise_std"] ** 2 == pytest.approx(2 * 0.3**2, rel=1e-6)


def test_score_has_no_density_for_a_negative_variance():
    zero = torch.zeros(2)
    assert gp.score(zero, torch.tensor([1.0, -1.0]), zero)["nll"] is None
    assert gp.score(zero, torch.ones(2), zero)["nll"] == pytest.approx(0.9189385)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_goes_its_own_way(name):
    """Above GPyTorch's Cholesky threshold, only Cholesky iterates nothing, and every loss is near the truth."""
    model = problem(n=900)
    truth = gp.truth(model)
    with METHODS[name].active(seed=0) as record:
        loss = gp.training_step(model)
    assert (record.num_iterations > 0) == (name != "cholesky")
    assert float(loss) == pytest.approx(truth.loss, abs=0.05)
    assert record.num_fallbacks == 0


def test_iterations_of_gpytorch_are_counted():
    model = problem(n=900)
    limit = gpytorch.settings.max_cg_iterations(25)
    with METHODS["cg-default"].active(seed=0) as record, limit, gpytorch.settings.cg_tolerance(1e-12):
        gp.training_step(model)
    assert record.num_iterations == 25
    assert any("CG terminated in 25 iterations" in warning for warning in record.warnings)


def test_a_method_leaves_no_setting_behind():
    before = gpytorch.settings.cg_tolerance.value()
    for method in METHODS.values():
        with method.active(seed=0):
            pass
    assert gpytorch.settings.cg_tolerance.value() == before
