import json

import pytest

from experiments import tables


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_pages_say_what_the_committed_results_say(page):
    text = page.read_text()
    assert tables.render(text) == text, "run `python -m experiments.tables`"


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_every_table_of_a_page_has_been_measured(page):
    assert "Not measured yet." not in page.read_text()


def test_a_changed_result_changes_the_readme(tmp_path):
    readme = "before\n<!-- table: one -->\nold\n<!-- end of table -->\nafter\n"
    assert "Not measured yet." in tables.render(readme, tmp_path)
    method = {
        "label": "Cholesky",
        "train_seconds": 6.0,
        "step_seconds": [2.0, 4.0],
        "iterations_per_step": 0.0,
        "num_fallbacks": 0,
        "warnings": [],
        "start": {"loss_error": 1e-7, "gradient_error": 2e-6},
        "end": {"loss_error": 3e-7, "gradient_error": 4e-6},
        "prediction": {
            "seconds": 12.3,
            "warnings": [],
            "num_fallbacks": 0,
            "rmse": 0.1,
            "nll": None,
            "coverage": 0.95,
        },
    }
    result = {
        "config": {"kernel": "matern32", "dtype": "float32", "steps": 2, "seed": 0, "step_only": False},
        "dataset": {"name": "one", "n": 4000, "num_test": 1000, "num_features": 9},
        "environment": {"cpu": "some CPU", "num_threads": 2, "versions": {"torch": "2", "gpytorch": "1"}},
        "methods": {"cholesky": method},
    }
    (tmp_path / "one.json").write_text(json.dumps(result))
    rendered = tables.render(readme, tmp_path)
    assert rendered.startswith("before\n")
    assert rendered.endswith("<!-- end of table -->\nafter\n")
    for line in ("| training step | 3.00 s |", "| prediction | 12 s |", "| test NLL | - |", "4,000 training"):
        assert line in rendered
    assert tables.render(rendered, tmp_path) == rendered


def test_a_marker_may_name_one_of_several_tables_of_a_file(tmp_path):
    cells = [
        {"operation": operation, "n": 20, "family": family, "column": "direct", "can_run": True, "errors": [error]}
        | {"median": error, "num_reported": 0, "num_draws": 1}
        for operation in ("solve", "logdet")
        for family, error in (("identity", 1e-16), ("Gaussian", 3e-12))
    ]
    result = {
        "kind": "ood-families",
        "config": {"num_draws": 1, "num_loops": 16},
        "environment": {"cpu": "some CPU", "num_threads": 2, "versions": {"torch": "2"}},
        "source": "laws",
        "cells": cells,
    }
    (tmp_path / "two.json").write_text(json.dumps(result))
    page = "<!-- table: two -->\n<!-- end of table -->\n<!-- table: two#logdet-20 -->\n<!-- end of table -->\n"
    whole, view = tables.render(page, tmp_path).split("<!-- end of table -->\n")[:2]
    assert "| solve: direct | 1.5e-12 (3.0e-12) |" in whole
    assert "| Gaussian | 3.0e-12 |" in view
    assert "logdet, n = 20" in view
    assert tables.render(tables.render(page, tmp_path), tmp_path) == tables.render(page, tmp_path)


def test_every_kind_of_result_has_a_caption_and_a_table():
    for module in tables.KINDS.values():
        assert callable(module.caption)
        assert callable(module.comparison)
