"""Weights and card as one: damaged anywhere they are refused, killed at any moment they are the old or the new ones."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from checkpoint_examples import rewritten

from rangeformer.models import stored_pair
from rangeformer.models.checkpoint import card_path, load, save
from rangeformer.models.features import RangeFormer, RangeFormerConfig

SMALL = RangeFormerConfig(channels=8, num_heads=2, num_waves=4)


def marked(value: float) -> RangeFormer:
    """A model told apart by one of its weights."""
    model = RangeFormer.untrained(SMALL)
    model.slot_gains.fill_(value)
    return model


def mark_of(path) -> float:
    return float(load(path).slot_gains[0])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save(marked(1.0), path, {"seed": 1})
    return path


def test_flipped_bits_in_the_weights(saved):
    raw, generator = saved.read_bytes(), torch.Generator().manual_seed(0)
    places = [0, 7, 8, 60, len(raw) - 1, *torch.randint(len(raw), (60,), generator=generator).tolist()]
    for place in places:
        flipped = bytearray(raw)
        flipped[place] ^= 1 << (place % 8)
        saved.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"model\.safetensors.*SHA-256.*Restore the file"):
            load(saved)


def test_flipped_bits_in_the_card_are_refused_or_change_no_model(saved):
    """The notes on a card are for people; whatever decides what is computed is checked."""
    text, model = card_path(saved).read_bytes(), load(saved)
    messages = []
    for place in range(len(text)):
        flipped = bytearray(text)
        flipped[place] ^= 1 << (place % 7)
        card_path(saved).write_bytes(flipped)
        try:
            loaded = load(saved)
        except ValueError as error:
            messages.append(str(error))
        else:
            assert loaded.config == model.config
            assert all(torch.equal(w, model.state_dict()[name]) for name, w in loaded.state_dict().items())
    assert len(messages) > 0.8 * len(text)
    assert all("model." in message for message in messages)


def test_truncated_at_any_length(saved):
    for file in (saved, card_path(saved)):
        raw = file.read_bytes()
        for length in [0, 1, 7, 8, 9, len(raw) // 3, len(raw) // 2, len(raw) - 9, len(raw) - 2]:
            file.write_bytes(raw[:length])
            with pytest.raises(ValueError, match=r"model\..*Restore the file"):
                load(saved)
        file.write_bytes(raw)
    assert mark_of(saved) == 1.0


def test_a_pair_of_two_saves_is_noticed(saved, tmp_path):
    other = tmp_path / "other.safetensors"
    save(marked(2.0), other)
    saved.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="its SHA-256 digest is not the one on its card"):
        load(saved)


def test_weights_of_the_first_version_still_load(saved):
    before = load(saved).state_dict()
    rewritten(saved, lambda weights: weights)
    assert all(torch.equal(weight, before[name]) for name, weight in load(saved).state_dict().items())


@pytest.mark.parametrize(
    ("change", "dtype", "message"),
    [
        (lambda w: {k: v for k, v in w.items() if k != "slot_gains"}, torch.float32, r"Missing key.*slot_gains"),
        (lambda w: {**w, "further": torch.ones(2)}, torch.float32, "Unexpected key.*further"),
        (lambda w: {**w, "slot_gains": torch.ones(2)}, torch.float32, "size mismatch for slot_gains"),
        (lambda w: {**w, "slot_gains": w["slot_gains"] + torch.nan}, torch.float32, "not finite: 'slot_gains'"),
        (lambda w: {**w, "slot_gains": w["slot_gains"] - torch.inf}, torch.float32, "not finite: 'slot_gains'"),
        (lambda w: w, torch.float16, "are torch.float16, not torch.float32"),
        (lambda w: w, torch.int64, "are torch.int64, not torch.float32"),
        (lambda w: {"of another program": torch.ones(3)}, torch.float32, "Missing key"),
        (lambda w: {}, torch.float32, "Missing key"),
    ],
)
def test_other_weights_under_a_card_with_their_digest(saved, change, dtype, message):
    rewritten(saved, change, dtype)
    with pytest.raises(ValueError, match=rf"(?s)model\.safetensors.*{message}.*Restore the file"):
        load(saved)


class Killed(BaseException):
    """What no handler expects."""


@pytest.mark.parametrize("first", [True, False], ids=["nothing before", "a pair before"])
def test_a_save_cut_short_before_any_of_its_steps(tmp_path, monkeypatch, first):
    """Every system call of a save fails once; what is there loads, and the next save leaves nothing behind."""
    path = tmp_path / "a.b[1].safetensors"
    found = set()
    for cut in range(30):
        if not first:
            save(marked(1.0), path)
        calls = 0

        def counted(call, cut=cut):
            def wrapped(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls > cut:  # a killed process does not clean up either
                    raise Killed
                return call(*args, **kwargs)

            return wrapped

        with monkeypatch.context() as patch:
            for module, name in [(stored_pair.tempfile, "mkstemp"), (os, "fsync"), (os, "chmod"), (os, "replace")]:
                patch.setattr(module, name, counted(getattr(module, name)))
            patch.setattr(stored_pair.Path, "unlink", counted(stored_pair.Path.unlink))
            with contextlib.suppress(Killed):
                save(marked(2.0), path)
        if first and not card_path(path).exists():
            with pytest.raises(FileNotFoundError):
                load(path)
            found.add(0.0)
        else:
            found.add(mark_of(path))
        save(marked(3.0), path)
        assert mark_of(path) == 3.0
        assert sorted(file.name for file in tmp_path.iterdir()) == ["a.b[1].json", "a.b[1].safetensors"]
        if calls <= cut:
            break
        if first:
            path.unlink()
            card_path(path).unlink()
    assert calls <= cut, "the last save was not cut"
    assert found == {0.0 if first else 1.0, 2.0}


def test_files_of_others_stay(saved):
    names = ["model.json.bak", "model.tmp", "model.new-1.safetensors", "model.v2.safetensors", "model2.json.abc.tmp"]
    for name in names:
        (saved.parent / name).write_text("mine")
    (saved.parent / "model.json.abcd1234.tmp").write_text("left by a killed process")
    save(marked(2.0), saved)
    assert sorted(file.name for file in saved.parent.iterdir()) == sorted([*names, saved.name, card_path(saved).name])


# forks a child that saves for ever, at every line it reads, so that torch is loaded once
SAVE_FOR_EVER = """
import itertools, os, sys
sys.path[:0] = {path!r}
from test_stored_pair import marked, save
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        for value in itertools.count(2):
            save(marked(float(value)), {saved!r})
    print(child, flush=True)
    os.waitpid(child, 0)
"""


def test_killed_at_random_moments_while_saving(saved):
    """SIGKILL, again and again: a pair is always there, and never an older one than before."""
    code = SAVE_FOR_EVER.format(path=[os.path.dirname(__file__), *filter(None, sys.path)], saved=str(saved))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    generator, marks = torch.Generator().manual_seed(1), []
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], **pipes) as parent:
        for _ in range(25):
            save(marked(1.0), saved)
            parent.stdin.write("\n")
            child = int(parent.stdout.readline())
            latest, end = 1.0, time.monotonic() + 0.1 * float(torch.rand((), generator=generator))
            while time.monotonic() < end:
                found = mark_of(saved)  # a reader meets no half of a pair either
                assert found >= latest
                latest = found
            os.kill(child, signal.SIGKILL)
            marks.append(mark_of(saved))
            assert marks[-1] >= latest
        parent.stdin.close()
    assert max(marks) > 2
    save(marked(1.0), saved)
    assert len(list(saved.parent.iterdir())) == 2


def test_writers_and_readers_at_once(saved):
    errors, stop = [], threading.Event()

    def write(value):
        try:
            for _ in range(15):
                save(marked(value), saved)
        except BaseException as error:  # reported by the main thread
            errors.append(error)

    def read():
        try:
            while not stop.is_set():
                assert mark_of(saved) in (1.0, 2.0, 3.0)
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(value,)) for value in (2.0, 3.0)]
    reader = threading.Thread(target=read)
    for thread in [*writers, reader]:
        thread.start()
    for thread in writers:
        thread.join(60)
    stop.set()
    reader.join(60)
    assert not errors
    assert mark_of(saved) in (2.0, 3.0)
    assert json.loads(card_path(saved).read_text())["sha256"]
    assert len(list(saved.parent.iterdir())) == 2
