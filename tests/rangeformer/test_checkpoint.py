"""Checkpoints: what goes in comes out, and whatever is broken says so and what to do."""

import json

import pytest
import torch
from pivoted_examples import pivot_columns

from rangeformer.checkpoint import SHIPPED, card_path, load, read_card, save
from rangeformer.model import RangeFormer, RangeFormerConfig

SMALL = RangeFormerConfig(channels=8, num_heads=2, num_waves=4)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save(RangeFormer(SMALL, generator=torch.Generator().manual_seed(1)), path, {"seed": 1})
    return path


def test_round_trip(saved):
    original = RangeFormer(SMALL, generator=torch.Generator().manual_seed(1))
    loaded = load(saved)
    assert loaded.config == SMALL
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    for name, weight in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    inputs = pivot_columns(20, 4)
    assert torch.equal(loaded(*inputs).neighbors, original(*inputs).neighbors)
    assert read_card(saved)["seed"] == 1


def test_shipped_weights_and_card():
    model, card = load(), read_card(SHIPPED["features"])
    assert model.config == RangeFormerConfig()
    for key in ("seed", "training", "training_laws", "versions", "commit", "validation", "run", "sha256"):
        assert card[key] is not None, key
    before, after = card["validation"]["untrained"], card["validation"]["trained"]
    assert after["missed"] <= before["missed"]
    assert after["range"] <= before["range"]


def test_nothing_but_the_two_files_is_left(saved):
    save(RangeFormer.untrained(SMALL), saved)
    assert sorted(p.name for p in saved.parent.iterdir()) == ["model.json", "model.safetensors"]


def test_a_failed_save_leaves_what_was_there(saved):
    before = saved.read_bytes(), card_path(saved).read_bytes()
    with pytest.raises(TypeError):
        save(RangeFormer.untrained(SMALL), saved, {"seed": object()})
    assert (saved.read_bytes(), card_path(saved).read_bytes()) == before
    assert len(list(saved.parent.iterdir())) == 2


def test_missing_files(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        load(tmp_path / "nowhere.safetensors")
    card_path(saved).unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        load(saved)


@pytest.mark.parametrize("kind", ["truncated", "flipped", "empty", "pickle"])
def test_broken_weights(saved, kind):
    raw = saved.read_bytes()
    broken = {"truncated": raw[:-9], "flipped": raw[:-1] + bytes([raw[-1] ^ 1]), "empty": b"", "pickle": b"\x80\x04N."}
    saved.write_bytes(broken[kind])
    with pytest.raises(ValueError, match=r"model\.safetensors.*SHA-256.*Restore the file"):
        load(saved)


def test_not_safetensors_under_a_matching_digest(saved):
    import hashlib

    saved.write_bytes(b"not safetensors")
    card = read_card(saved)
    card["sha256"] = hashlib.sha256(b"not safetensors").hexdigest()
    card_path(saved).write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"model\.safetensors.*not a safetensors file"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"channels": 16, "num_heads": 2}}, "do not fit the configuration"),
        ({"config": {"unheard_of": 3}}, "do not fit the configuration"),
        ({"config": {"attention": "none"}}, "`attention` must be one of"),
        ({"format": "rangeformer-99"}, "its format is 'rangeformer-99'"),
    ],
)
def test_mismatched_card(saved, change, message):
    card_path(saved).write_text(json.dumps({**read_card(saved), **change}))
    with pytest.raises(ValueError, match=message):
        load(saved)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_broken_card(saved, text):
    card_path(saved).write_text(text)
    with pytest.raises(ValueError, match=r"model\.json.*Restore the file"):
        load(saved)


def test_weights_that_are_not_finite(saved):
    model = RangeFormer.untrained(SMALL)
    model.slot_gains[0] = torch.nan
    save(model, saved)
    with pytest.raises(ValueError, match="not finite"):
        load(saved)


def test_wrong_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        save(RangeFormer.untrained(SMALL), tmp_path / "model.pt")
