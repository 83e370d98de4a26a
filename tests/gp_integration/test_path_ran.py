"""That training, prediction, variance and sampling are ours is counted twice: in the report, and at `rangeformer`."""

import pytest
import torch
from gp_models import data, exact_gp, predict, value_and_gradient

import rangeformer as rf
from gp_integration import sampling
from gp_integration.settings import use_rangeformer


@pytest.fixture
def spy(monkeypatch):
    calls = []
    for name in ("inv_quad_logdet", "linear_solve", "sample_gaussian"):
        original = getattr(rf, name)

        def wrapped(*args, _name=name, _original=original, **kwargs):
            calls.append(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(rf, name, wrapped)
    return calls


def test_training(spy):
    with use_rangeformer() as recorder:
        value_and_gradient(exact_gp(810))
    assert spy == ["inv_quad_logdet"]
    assert [call.purpose for call in recorder.report().calls] == ["log_prob"]


def test_prediction_and_variance(spy):
    with torch.no_grad(), use_rangeformer() as recorder:
        out = predict(exact_gp(810), data(5, seed=9)[0])
        assert out.variance.min() > 0
    assert spy == ["linear_solve", "linear_solve"]
    assert [call.purpose for call in recorder.report().calls] == ["mean", "covariance"]


def test_sampling(spy, monkeypatch):
    with torch.no_grad(), use_rangeformer() as recorder:
        out = predict(exact_gp(810), data(30, seed=9)[0])
        spy.clear()
        out.sample()
        assert spy == []
        assert recorder.report().calls[-1].method == "cholesky (exact)"
        monkeypatch.setattr(sampling, "CHOLESKY_SIZE", 10)
        model = exact_gp(810)
        model.train()
        model.likelihood(model(*model.train_inputs)).sample()
    assert spy == ["sample_gaussian"]
    assert [call.purpose for call in recorder.report().calls].count("samples") == 2


def test_gpytorchs_own_solvers_never_run(monkeypatch):
    import linear_operator

    def fail(*args, **kwargs):
        raise AssertionError("GPyTorch's CG ran")

    monkeypatch.setattr(linear_operator.utils, "linear_cg", fail)
    monkeypatch.setattr(linear_operator.utils.cholesky, "_psd_safe_cholesky", fail)
    with use_rangeformer():
        model = exact_gp(810)
        value_and_gradient(model)
        with torch.no_grad():
            out = predict(model, data(5, seed=9)[0])
            _ = out.variance, out.sample()


def test_outside_none_of_it_runs(spy):
    model = exact_gp(810)
    value_and_gradient(model)
    with torch.no_grad():
        _ = predict(model, data(5, seed=9)[0]).variance
    assert spy == []
