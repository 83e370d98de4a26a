"""The command line: what it writes, what it says, what it refuses before any work."""

import json
import math
import re

import pytest
from toy import ToyConfig, toy_fields, toy_plan

from rangeformer.models.checkpoint import load, read_card
from rangeformer.pretrain import pretrain
from rangeformer.pretrain.__main__ import main
from rangeformer.pretrain.card import make_card
from rangeformer.pretrain.curves import write_curves


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(toy_fields()))
    return path


def test_what_is_written(tmp_path, config, capsys):
    out = tmp_path / "deep" / "w.safetensors"
    assert main(["--config", str(config), "--steps", "7", "--out", str(out), "--set", "model.width=5"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"step      5  loss [\d.]+  squares [\d.]+  error [\d.]+  largest", said)
    assert re.search(r"7 steps in .* \(0 skipped\)", said)
    assert re.search(r"untrained +[\d.]+ +[\d.]+\nwritten", said)
    assert sorted(p.name for p in out.parent.iterdir()) == ["w.history.json", "w.json", "w.png", "w.safetensors"]
    model, card = load(out), read_card(out)
    assert model.config == ToyConfig(width=5)
    assert card["model"] == "Toy"
    assert card["training"] == toy_plan({"model": {"width": 5}}, num_steps=7).as_fields()
    assert card["run"].items() >= {"num_steps": 7, "num_skipped": 0, "num_processes": 1, "device": "cpu"}.items()
    for key in ("seed", "improved_over_untrained", "validation", "versions", "commit", "sha256"):
        assert key in card, key
    validation = card["validation"]
    assert validation["objective"] == "error"
    assert validation["trained"]["error"] <= validation["untrained"]["error"]
    assert validation["table"][3]["case"] == 3
    assert set(validation["table"][3]) == {"case", "untrained", "trained"}
    history = json.loads(out.with_suffix(".history.json").read_text())
    assert history == card["history"]
    assert [row["step"] for row in history] == [0, 5, 7]


def test_options_and_settings_win_over_the_file(tmp_path, config):
    out = tmp_path / "w.safetensors"
    options = ["--steps", "3", "--seed", "5", "--threads", "1", "--minutes", "9", "--quiet"]
    changes = ["--set", "pause=0.001", "--set", "run.learning_rate=0.5", "--set", "run.precision=bfloat16"]
    assert main(["--config", str(config), "--out", str(out), *options, *changes]) == 0
    training = read_card(out)["training"]
    expected = {"num_steps": 3, "seed": 5, "max_minutes": 9, "learning_rate": 0.5, "precision": "bfloat16"}
    assert training["run"].items() >= expected.items()
    assert training["settings"]["pause"] == 0.001


def test_quiet(tmp_path, config, capsys):
    main(["--config", str(config), "--out", str(tmp_path / "w.safetensors"), "--quiet"])
    assert "step  " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "`num_steps` must be positive"),
        (["--set", "nonsense=1"], "Unknown fields ['nonsense'] in the settings of task 'toy'"),
        (["--set", "run.nonsense=1"], "Unknown fields ['nonsense'] in the run's fields"),
        (["--set", "model.width=wide"], "`width` in `model` in the settings of task 'toy' must be of type int"),
        (["--set", "width"], "--set must be given as key=value. Got 'width'"),
        (["--config", "nowhere"], "There is no configuration 'nowhere'"),
        (["--out", "w.pt"], "--out must end in .safetensors"),
        (["--resume"], "no state to resume from"),
        (["--device", "tpu"], "`device` must be"),
    ],
)
def test_what_is_refused(tmp_path, config, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main(["--config", str(config), "--out", str(tmp_path / "w.safetensors"), *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [config]


def test_a_run_that_did_not_help_says_so(tmp_path, config, capsys):
    out = tmp_path / "w.safetensors"
    main(["--config", str(config), "--out", str(out), "--set", "failing_share=1.0"])
    assert "(24 skipped); NOT better than untrained: the untrained weights were written" in capsys.readouterr().out
    assert not read_card(out)["improved_over_untrained"]


def test_figures_that_are_not_finite_are_null_in_json(tmp_path):
    plan = toy_plan()
    result = pretrain(plan)
    result.record.history[2]["error"] = math.nan
    result.record.best["largest"] = math.inf
    card = json.loads(json.dumps(make_card(plan, result), allow_nan=False))
    assert card["history"][2]["error"] is None
    assert card["validation"]["trained"]["largest"] is None
    write_curves(tmp_path / "w.safetensors", plan, result)
    assert json.loads((tmp_path / "w.history.json").read_text())[2]["error"] is None


def test_a_bar_on_a_terminal(tmp_path, config, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    main(["--config", str(config), "--out", str(tmp_path / "w.safetensors"), "--steps", "6"])
    said = capsys.readouterr().out
    assert "step      5" in said
    assert "100%" in said
