import json

import pytest

from experiments import tables


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_pages_say_what_the_committed_results_say(page):
    text = page.read_text()
    assert "Not measured yet." not in text
    assert tables.render(text) == text, "run `python -m experiments.tables`"


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
