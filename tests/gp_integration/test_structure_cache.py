"""Pivots and neighbours are remembered between training steps, and dropped when they stop serving."""

import gc
import weakref

import pytest
import torch
from gp_models import data, exact_gp, predict, truth, value_and_gradient

import rangeformer as rf
from gp_integration import structure_cache
from gp_integration.settings import use_rangeformer


@pytest.fixture
def given(monkeypatch):
    """The structures preconditioners are built from, None where one is searched."""
    log = []
    original = rf.build_preconditioner

    def build(*args, structure=None, **kwargs):
        log.append(structure)
        return original(*args, structure=structure, **kwargs)

    monkeypatch.setattr(rf, "build_preconditioner", build)
    return log


def test_training_steps_and_prediction_share_a_structure(given):
    model = exact_gp(810)
    with use_rangeformer():
        first = value_and_gradient(model)
        second = value_and_gradient(model)
    with use_rangeformer(), torch.no_grad():
        predict(model, data(5, seed=9)[0])
    assert [s is None for s in given] == [True, False, False]
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_it_can_be_switched_off_and_other_options_search_anew(given):
    model = exact_gp(810)
    with use_rangeformer(reuse_structure=False):
        value_and_gradient(model)
        value_and_gradient(model)
    with use_rangeformer():
        value_and_gradient(model)
    with use_rangeformer(num_columns=20):
        value_and_gradient(model)
    assert given == [None] * 4


def test_a_structure_that_stops_serving_is_dropped_and_harms_no_result(given):
    model = exact_gp(810, lengthscale=0.3)
    with use_rangeformer():
        value_and_gradient(model)
        # other inputs behind the same kernel: the remembered neighbours are now random rows
        model.set_train_data(*data(810, seed=5))
        loss, gradient = value_and_gradient(model)
        value_and_gradient(model)
    true_loss, true_gradient, scale = truth(model)
    assert (loss - true_loss).abs() <= 1e-3 * true_loss.abs()
    assert (gradient - true_gradient).norm() <= 1e-2 * scale
    assert [s is None for s in given] == [True, False, True, False], "tried, found wanting, searched anew, kept"


def test_nothing_is_remembered_of_a_model_that_is_gone():
    model = exact_gp(810)
    with use_rangeformer():
        value_and_gradient(model)
    kernel = weakref.ref(model.covar_module)
    assert kernel() in structure_cache._entries
    del model
    gc.collect()
    assert kernel() is None


def test_a_step_that_reuses_a_structure_reads_no_pilot(monkeypatch):
    set_up, built, whole = [], [], []
    build, driver = rf.build_preconditioner, rf.inv_quad_logdet

    def counted_build(operator, *args, **kwargs):
        before = operator.reads.snapshot()
        built.append(build(operator, *args, **kwargs))
        set_up.append(operator.reads.since(before))
        return built[-1]

    def counted_driver(operator, *args, **kwargs):
        result = driver(operator, *args, **kwargs)
        whole.append(operator.reads.snapshot())
        return result

    monkeypatch.setattr(rf, "build_preconditioner", counted_build)
    monkeypatch.setattr(rf, "inv_quad_logdet", counted_driver)
    n, model = 810, exact_gp(810)
    with use_rangeformer() as recorder:
        for _ in range(3):
            value_and_gradient(model)
    first, *later = recorder.report().calls
    assert [(call.num_iterations, call.residual) for call in later] == [(first.num_iterations, first.residual)] * 2
    for P, reads, total in zip(built[1:], set_up[1:], whole[1:], strict=True):
        c, k = P.num_columns, P.num_neighbors
        # the pivots' columns, the neighbours' small systems, and the diagonal three times: nothing is left for a pilot
        assert reads.entries <= n * (c + k * (k + 1) + 3)
        assert (reads.matvecs, reads.passes) == (0, 0)
        assert total.entries < whole[0].entries
        assert total.matvecs <= whole[0].matvecs
