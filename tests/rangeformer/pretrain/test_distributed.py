"""Two processes: the same weights as one with the same shards, and all agree on what to skip and when to stop."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy import toy_fields, toy_plan

from rangeformer.models.checkpoint import load, read_card
from rangeformer.pretrain import Plan, pretrain
from rangeformer.pretrain.__main__ import main
from rangeformer.pretrain.distributed import Processes, started
from rangeformer.pretrain.resume import state_path

TOY = Path(__file__).with_name("toy.py")
SETTINGS = {"nan_share": 0.1, "failing_share": 0.05, "worse_at_end": True}


def test_two_processes_give_the_weights_of_one(tmp_path):
    """Five shards on two processes, some of them not finite, from the state of a single one, against a single one."""
    config, out = tmp_path / "config.json", tmp_path / "w.safetensors"
    fields = toy_fields(SETTINGS, num_shards=5, num_steps=60)
    config.write_text(json.dumps(fields))
    plan = Plan.from_fields(fields)

    def stop_early(message):
        if message["step"] == 9:
            signal.raise_signal(signal.SIGTERM)

    assert not pretrain(plan, out=out, report=stop_early).finished
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(TOY), "--config", str(config), "--out", str(out), "--resume"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote") == 1, "the first process alone speaks and writes"
    assert not list(tmp_path.glob("*resume*"))
    one = pretrain(plan)
    assert one.record.num_skipped > 5
    card, two = read_card(out), load(out)
    assert card["run"]["num_processes"] == 2
    assert card["run"]["num_skipped"] == one.record.num_skipped
    assert card["history"][-1]["mended"]
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value, rtol=0, atol=1e-6)
    assert [row["step"] for row in card["history"]] == [row["step"] for row in one.record.history]


class WithAnother(Processes):
    """The first of two processes; what the other adds to the sum is made up here."""

    def sum_(self, values):
        if values.numel() > 1:
            values[-4:] += torch.tensor(self.others)
        return values

    def from_first_(self, values):
        return values

    def from_first(self, value):
        return value


@pytest.mark.parametrize(
    ("others", "num_skipped", "finished"),
    [((1.0, 0.0, 0.0, 0.0), 0, True), ((0.0, 1.0, 0.0, 0.0), 24, True), ((0.0, 0.0, 1.0, 0.0), 0, False)],
)
def test_what_one_process_meets_all_heed(tmp_path, others, num_skipped, finished):
    """Another process's loss, its shard that was not finite, its wish to stop."""
    processes = WithAnother(0, 2)
    object.__setattr__(processes, "others", others)
    result = pretrain(toy_plan(), out=tmp_path / "w.safetensors", processes=processes)
    assert result.finished == finished
    assert result.record.num_skipped == num_skipped
    assert state_path(tmp_path / "w.safetensors").exists()


def test_more_processes_than_shards(tmp_path, monkeypatch, capsys):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(toy_fields(num_shards=1)))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        main(["--config", str(config), "--out", str(tmp_path / "w.safetensors")])
    assert "`num_shards` must be at least the number of processes, 2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [config]


def test_shards_are_dealt_in_turn():
    dealt = [list(Processes(rank, 3).own(7)) for rank in range(3)]
    assert dealt == [[0, 3, 6], [1, 4], [2, 5]]


def test_one_process_needs_no_launcher(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with started("cpu", 1) as processes:
        assert processes.first
        assert processes.size == 1
        assert processes.from_first({"a": 1}) == {"a": 1}
        assert processes.sum_(torch.ones(2)).tolist() == [1, 1]
        processes.wait()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match="torch sees no CUDA device"), started("cuda", 1):
        pass


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_features_on_a_gpu():
    settings = {"validation_size": 96, "validation_columns": [8], "batch_size": 2}
    plan = Plan.from_fields({"task": "features", "settings": settings, "run": {"num_steps": 3, "device": "cuda"}})
    result = pretrain(plan)
    assert result.record.num_skipped == 0
    assert next(result.model.parameters()).device.type == "cpu"
