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
