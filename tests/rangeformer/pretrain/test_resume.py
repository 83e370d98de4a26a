"""A run that is cut, anywhere and in any way, ends with the weights of the run that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy import ToyTask, toy_fields, toy_plan

from rangeformer.pretrain import Plan, pretrain, resume
from rangeformer.pretrain.__main__ import INTERRUPTED, main
from rangeformer.pretrain.config import RunConfig
from rangeformer.pretrain.resume import check_no_state, read_state, remove_state, state_path

TOY = Path(__file__).with_name("toy.py")
TINY_FEATURES = {
    "task": "features",
    "settings": {
        "model": {"channels": 16, "num_heads": 2, "num_waves": 8},
        "batch_size": 2,
        "sizes": [32, 48],
        "all_sizes_at": 0.5,
        "columns": [4, 8],
        "num_neighbors": [2, 3],
        "candidates_per_neighbor": [1.5, 3.0],
        "validation_neighbors": 4,
        "validation_laws": ["kernel_discretised", "toeplitz"],
        "validation_size": 48,
        "validation_columns": [8],
    },
    "run": {"num_steps": 24, "num_shards": 2, "validate_every": 7, "checkpoint_every": 3, "num_threads": 1},
}


def weights_and_history(out: Path) -> tuple[bytes, object, dict]:
    card = json.loads(out.with_suffix(".json").read_text())
    return out.read_bytes(), card["history"], card["validation"]


def cut_at(plan: Plan, out: Path, step: int, number: int = signal.SIGTERM):
    """Run, and send this process a signal while it reports a step: it stops after the next one."""

    def report(message):
        if message["step"] == step and "figures" not in message:
            signal.raise_signal(number)

    return pretrain(plan, out=out, report=report)


def same_state(first, second) -> bool:
    return all(torch.equal(first.state_dict()[name], value) for name, value in second.state_dict().items())


def test_killed_at_a_random_step_the_program_ends_with_the_same_weights(tmp_path):
    """The program itself, on the features, SIGKILL: bit for bit the weights, the history, the figures."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY_FEATURES))
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    program = [sys.executable, "-m", "rangeformer.pretrain", "--config", str(config), "--quiet", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*program, str(whole)], env=environment, check=True, timeout=120)
    wanted = random.randrange(1, 21)
    process = subprocess.Popen([*program, str(cut)], env=environment)
    try:
        deadline = time.monotonic() + 120
        while step_on_disk(cut) < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    assert wanted <= step_on_disk(cut) < 24
    subprocess.run([*program, str(cut), "--resume"], env=environment, check=True, timeout=120)
    assert weights_and_history(cut) == weights_and_history(whole)
    assert not list(tmp_path.glob("*resume*"))


def step_on_disk(out: Path) -> int:
    try:
        return json.loads(state_path(out).read_text())["record"]["step"]
    except FileNotFoundError:
        return -1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 10, 22])
def test_a_signal_stops_after_the_step_with_the_state_written(tmp_path, step, number):
    plan, out = toy_plan({"nan_share": 0.1, "worse_at_end": True}), tmp_path / "w.safetensors"
    before = signal.getsignal(number)
    stopped = cut_at(plan, out, step, number)
    assert not stopped.finished
    assert signal.getsignal(number) is before
    saved = read_state(out, plan)
    assert saved.record.step == step + 1
    resumed = pretrain(plan, out=out, saved=saved)
    whole = pretrain(plan)
    assert resumed.finished
    assert same_state(resumed.model, whole.model)
    for name in ("history", "best", "best_table", "losses", "num_skipped", "step", "progress", "untrained"):
        assert getattr(resumed.record, name) == getattr(whole.record, name), name


def test_without_a_file_to_write_signals_are_left_alone():
    # a test run in the background ignores Ctrl-C from its start on
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    def report(message):
        if message["step"] == 3:
            signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            pretrain(toy_plan(), report=report)
    finally:
        signal.signal(signal.SIGINT, handler)


def test_a_second_signal_does_not_wait(tmp_path):
    class Impatient(ToyTask):
        def draw(self, generator, progress):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    plan = toy_plan()
    with pytest.raises(KeyboardInterrupt):
        pretrain(Plan("toy", Impatient(), plan.run), out=tmp_path / "w.safetensors")


def test_the_command_says_that_it_can_be_resumed(tmp_path, capsys, monkeypatch):
    config, out = tmp_path / "config.json", tmp_path / "w.safetensors"
    config.write_text(json.dumps(toy_fields()))
    draw, sent = ToyTask.draw, []

    def draw_and_interrupt(self, generator, progress):
        if progress > 0.3 and not sent:
            sent.append(True)
            signal.raise_signal(signal.SIGINT)
        return draw(self, generator, progress)

    with monkeypatch.context() as patch:
        patch.setattr(ToyTask, "draw", draw_and_interrupt)
        assert main(["--config", str(config), "--out", str(out), "--quiet"]) == INTERRUPTED
    assert "stopped after step 9" in capsys.readouterr().out
    assert not out.exists()
    assert main(["--config", str(config), "--out", str(out), "--resume"]) == 0
    assert out.exists()


def test_minutes_go_on_where_they_stopped(tmp_path):
    plan, out = toy_plan({"pause": 0.002}, num_steps=10**6, max_minutes=0.02), tmp_path / "w.safetensors"
    cut_at(plan, out, 20)
    saved = read_state(out, plan)
    before = saved.record.minutes
    assert 0 < before < 0.02
    start = time.monotonic()
    result = pretrain(plan, saved=saved)
    assert result.record.minutes == pytest.approx(before + (time.monotonic() - start) / 60, abs=2e-3)
    assert result.record.minutes < 0.04


def test_a_kill_while_writing_leaves_the_last_state(tmp_path, monkeypatch):
    """Between the two files, and in the middle of one: what counts is the JSON file, which is renamed into place."""
    plan, out = toy_plan(), tmp_path / "w.safetensors"
    cut_at(plan, out, 5)
    write = resume.write_atomically

    def killed(path, data):
        if path.suffix == ".json":
            (path.parent / f"{path.name}.half").write_bytes(data[:10])
            raise MemoryError
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(resume, "write_atomically", killed)
        with pytest.raises(MemoryError):
            pretrain(plan, out=out, saved=read_state(out, plan))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    saved = read_state(out, plan)
    assert saved.record.step == 6
    assert same_state(pretrain(plan, out=out, saved=saved).model, pretrain(plan).model)
    assert len(list(tmp_path.iterdir())) == 2, "state and tensors of the last checkpoint only"
    remove_state(out)
    assert not list(tmp_path.iterdir())


def test_another_runs_state_is_not_touched(tmp_path):
    plan = toy_plan(num_steps=5)
    outs = [tmp_path / name for name in ("w.safetensors", "w2.safetensors", "w.b.safetensors")]
    for out in outs:
        cut_at(plan, out, 1)
    remove_state(outs[0])
    for out in outs[1:]:
        assert read_state(out, plan).record.step == 2


def test_resuming_with_another_configuration(tmp_path):
    out = tmp_path / "w.safetensors"
    cut_at(toy_plan(), out, 2)
    with pytest.raises(
        ValueError,
        match=r"configured otherwise \(run\.seed: 0 there, 1 here; settings\.model\.width: 8 there, 4 here\)",
    ):
        read_state(out, toy_plan({"model": {"width": 4}}, seed=1))
    # how fast it goes, and how often it is saved, are not part of the result
    assert read_state(out, toy_plan(num_threads=2, checkpoint_every=1)).record.step == 3


def test_a_field_that_a_later_version_added_has_its_default(tmp_path):
    default = RunConfig().weight_average
    out, plan = tmp_path / "w.safetensors", toy_plan(weight_average=default)
    cut_at(plan, out, 2)
    state = json.loads(state_path(out).read_text())
    del state["plan"]["run"]["weight_average"]
    state_path(out).write_text(json.dumps(state))
    assert read_state(out, plan).record.step > 0
    with pytest.raises(ValueError, match=f"run.weight_average: {default} there, {default / 2} here"):
        read_state(out, toy_plan(weight_average=default / 2))


def test_no_state_to_resume_from(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no state to resume from.*leave out --resume"):
        read_state(tmp_path / "w.safetensors", toy_plan())


def test_a_new_run_does_not_overwrite_an_unfinished_one(tmp_path):
    out = tmp_path / "w.safetensors"
    check_no_state(out)
    cut_at(toy_plan(), out, 2)
    with pytest.raises(ValueError, match=r"unfinished run.*--resume"):
        check_no_state(out)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "tensors": "a", "sha256": "b"}'])
def test_a_broken_state(tmp_path, text):
    state_path(tmp_path / "w.safetensors").write_text(text)
    with pytest.raises(ValueError, match="Cannot resume from .* Delete the state"):
        read_state(tmp_path / "w.safetensors", toy_plan())


def test_broken_tensors(tmp_path):
    plan, out = toy_plan(), tmp_path / "w.safetensors"
    cut_at(plan, out, 3)
    tensors = next(tmp_path.glob("*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(ValueError, match="missing, truncated or replaced"):
        read_state(out, plan)
    tensors.unlink()
    with pytest.raises(ValueError, match="missing, truncated or replaced"):
        read_state(out, plan)
