"""LAWT's tables end to end at smoke scale, their runs at every scale, and what is measured without a model."""

import json

import pytest
import torch

from experiments import tables
from experiments.lawt import comparison as lawt
from experiments.lawt import runs as lawt_runs
from experiments.lawt.measure import MEASURES
from experiments.lawt.views import Budget, by_condition, encoding_views, error_views
from rangeformer.baselines.lawt import Scores
from rangeformer.baselines.lawt.generators import SPECTRAL_DISTRIBUTIONS
from rangeformer.baselines.lawt.symbols import TASK_NAMES
from rangeformer.models.checkpoint import known_models
from rangeformer.pretrain.plan import Plan
from rangeformer.pretrain.tasks.lawt import LawtTask


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("lawt")


@pytest.fixture(autouse=True)
def _without_learning_curves(monkeypatch):
    """A picture for every run of the training program takes longer than the runs, and has tests of its own."""
    monkeypatch.setattr("rangeformer.pretrain.__main__.write_curves", lambda *arguments: None)


@pytest.mark.parametrize("table", MEASURES)
def test_every_table_at_smoke_scale(table, output, capsys):
    result = lawt.main(lawt.Config(table=table, output=output))
    written = json.loads((output / f"lawt_{table}.json").read_text())
    assert written["views"] == result["views"]
    assert (output / f"lawt_{table}.png").stat().st_size > 10_000
    assert set(result["runs"]) == {run.label for run in lawt_runs.runs_of(table, "smoke")}
    for name, view in result["views"].items():
        header, rows = lawt.comparison(result, name)
        assert all(len(row) == len(header) for row in rows), name
        assert tables.markdown(written, name).startswith(view["caption"])
    if table != "ceilings":
        assert tables.markdown(written) == tables.markdown(written, "trained")


def test_checkpoints_are_reused_and_those_of_others_refused(output, capsys):
    config = lawt.Config(table="ood", output=output)
    lawt.main(config)
    before = {path: path.stat().st_mtime_ns for path in config.folder.glob("*.safetensors")}
    capsys.readouterr()
    lawt.main(config)
    assert "training" not in capsys.readouterr().out.split("Eigenvalues")[0]
    assert before == {path: path.stat().st_mtime_ns for path in config.folder.glob("*.safetensors")}
    run = lawt_runs.runs_of("ood", "smoke")[0]
    other = lawt_runs.Run(run.name, run.label, run.config, {**run.changes, "run.seed": 1})
    with pytest.raises(ValueError, match="of another configuration"):
        lawt_runs.get(other, config.folder, threads=None, device="cpu")


@pytest.mark.parametrize("scale", lawt_runs.SCALES)
def test_runs_of_one_name_are_one_run_in_all_tables(scale):
    seen = {}
    for table in MEASURES:
        for run in lawt_runs.runs_of(table, scale):
            plan = Plan.from_file(run.config, run.changes)
            assert isinstance(plan.task, LawtTask)
            assert seen.setdefault(run.name, plan) == plan, run.name


def test_what_is_trained():
    chosen = {table: [run.label for run in lawt_runs.runs_of(table, "cpu")] for table in MEASURES}
    assert chosen["ood"] == ["semicircle", "laplace", "abs_laplace", "marchenko_pastur"]
    assert chosen["tasks"] == ["transposition", "addition", "matrix-vector", "eigenvalues"]
    assert [run.label for run in lawt_runs.runs_of("ood", "gpu")] == list(SPECTRAL_DISTRIBUTIONS)
    assert len(lawt_runs.runs_of("tasks", "gpu")) == len(TASK_NAMES) + 1
    kinds = {Plan.from_file(run.config, run.changes).task.model.kind for run in lawt_runs.runs_of("loops", "cpu")}
    assert kinds == {"transformer", "lstm", "gru"}
    assert {"LawtTransformer", "LawtRecurrent"} <= set(known_models())


def test_views_without_a_model():
    budget = Budget(num_test=1, num_ceiling=2000)
    views = {**encoding_views(budget), **error_views(budget)}
    assert [row["vocabulary"] for row in views["sizes"]["rows"]] == [338, 1328, 2329, 29_128]
    assert {row["label"].split(",")[0] for row in views["ceilings"]["rows"]} <= {"eigenvectors", "inversion", "svd"}
    inverse = {row["label"]: row for row in views["inverse"]["rows"]}
    assert inverse["5 x 5, 3 digits"]["right_0.05"] == pytest.approx(0.918, abs=0.02)
    assert inverse["5 x 5, 3 digits"]["predicted"] > 0.95
    for row in views["trivial"]["rows"]:
        assert row["right_0.05"] > 0.99
        assert row["orthogonality"] == 0


def test_conditioning_by_hand():
    def scores(errors: list[float], condition: list[float]) -> Scores:
        everywhere = torch.ones(len(errors), dtype=torch.bool)
        checks = {"condition": torch.tensor(condition, dtype=torch.float64)}
        return Scores(torch.tensor(errors, dtype=torch.float64), everywhere, everywhere, checks)

    row = by_condition(scores([0.01, 0.2, 0.01, 0.3], [1.0, 2.0, 3.0, 9.0]))
    assert (row["passed"], row["failed"]) == (1.0, 2.0)
    assert row["predicted"] == 0.75
    assert by_condition(scores([0.2, 0.3], [1.0, 2.0]))["predicted"] == 1
    assert by_condition(scores([0.2, 0.3], [1.0, 2.0]))["passed"] is None


def test_text_of_numbers():
    assert [lawt._text(*pair) for pair in ((None, "x"), (1234, "examples"), (0.5, "right"), (1234.5, "passed"))] == [
        "-",
        "1,234",
        "50.0",
        "1,234",
    ]
