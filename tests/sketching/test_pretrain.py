"""The training program with the random features: the same as `rangeformer.pretrain`, whose tests say more."""

import json
import signal
import subprocess
import sys

import pytest
import torch

import rangeformer as rf
from rangeformer.models.checkpoint import read_card
from rangeformer.pretrain.__main__ import INTERRUPTED
from rangeformer.pretrain.__main__ import main as program_of_rangeformer
from sketching import RandomFeatures
from sketching.learning.task import SketchTask
from sketching.pretrain import main

TINY = {
    "task": "sketch",
    "settings": {
        "model": {"channels": 8, "num_heads": 2, "num_waves": 24, "num_learned": 4},
        "laws": ["smooth_field", "kernel_grid"],
        "sizes": [48],
        "batch_size": 2,
        "ranks": [3, 6],
        "rows": [6, 12],
        "validation_laws": ["cross_kernel"],
        "validation_shape": [50, 40],
        "validation_rank": 5,
        "validation_rows": [8],
        "validation_members": 2,
    },
    "run": {"num_steps": 12, "learning_rate": 1e-2, "weight_average": 0.5, "validate_every": 4, "num_threads": 1},
}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TINY))
    return path


def weights_and_figures(out):
    card = json.loads(out.with_suffix(".json").read_text())
    return out.read_bytes(), card["history"], card["validation"]


def test_an_interrupted_run_ends_as_the_one_that_was_not(tmp_path, config, capsys, monkeypatch):
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    options = ["--config", str(config), "--quiet", "--out"]
    assert main([*options, str(whole)]) == 0
    draw = SketchTask.draw

    def draw_and_interrupt(self, generator, progress):
        if 0.4 < progress < 0.6:
            signal.raise_signal(signal.SIGINT)
        return draw(self, generator, progress)

    with monkeypatch.context() as patch:
        patch.setattr(SketchTask, "draw", draw_and_interrupt)
        assert main([*options, str(cut)]) == INTERRUPTED
    assert "continue with --resume" in capsys.readouterr().out
    assert main([*options, str(cut), "--resume"]) == 0
    assert weights_and_figures(cut) == weights_and_figures(whole)


def test_what_is_written_loads_as_random_features(tmp_path, config):
    out = tmp_path / "w.safetensors"
    assert main(["--config", str(config), "--steps", "2", "--out", str(out), "--quiet"]) == 0
    random_features = rf.load(out)
    assert isinstance(random_features, RandomFeatures)
    assert random_features.config.num_waves == 24
    proposal = random_features(torch.eye(6, 20, dtype=torch.float64))
    assert torch.isfinite(proposal.features).all()
    card = read_card(out)
    assert card["package"] == "sketching"
    assert card["training_laws"]["all"] == ["smooth_field", "kernel_grid"]
    # who has not imported the package is told to
    code = f"import rangeformer; rangeformer.load({str(out)!r})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert "its model 'RandomFeatures' belongs to 'sketching'. Import sketching first." in found.stderr


def test_each_program_knows_its_own_tasks_and_files(tmp_path, config, capsys):
    with pytest.raises(SystemExit):
        program_of_rangeformer(["--config", str(config), "--out", str(tmp_path / "w.safetensors")])
    assert "`task` must be one of" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--config", "galerkin", "--out", str(tmp_path / "w.safetensors")])
    said = capsys.readouterr().err
    assert "python -m sketching.pretrain: error" in said
    assert "one of the shipped ones: ['sketch']" in said
