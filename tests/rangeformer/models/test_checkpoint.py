"""Checkpoints: what goes in comes out, and whatever is broken says so and what to do."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from checkpoint_examples import rewritten
from pivoted_examples import pivot_columns
from torch import nn

from rangeformer.models import checkpoint
from rangeformer.models.checkpoint import MODELS, SHIPPED, card_path, known_models, load, read_card, register, save
from rangeformer.models.features import RangeFormer, RangeFormerConfig

SMALL = RangeFormerConfig(channels=8, num_heads=2, num_waves=4)


@dataclass(frozen=True)
class ForeignConfig:
    width: int = 2

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "ForeignConfig":
        return cls(**fields)


class Foreign(nn.Module):
    """A model that this package does not know."""

    def __init__(self, config: ForeignConfig):
        super().__init__()
        self.config = config
        self.layer = nn.Linear(config.width, 1)


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
        ({"config": {"channels": "wide"}}, "do not fit the configuration"),
        ({"config": {"num_heads": 0}}, "do not fit the configuration"),
        ({"config": None}, "do not fit the configuration"),
        ({"model": ["RangeFormer"]}, r"its model is \['RangeFormer'\], this version knows"),
        ({"model": "os.system"}, "its model is 'os.system', this version knows"),
        ({"format": "rangeformer-99"}, "its format is 'rangeformer-99', .* later version .* update the package"),
        ({"format": {"a": 1}}, "its format is {'a': 1}, this version reads"),
        ({"sha256": None}, "does not carry the SHA-256 digest"),
        ({"sha256": "../" * 22}, "does not carry the SHA-256 digest"),
    ],
)
def test_mismatched_card(saved, change, message):
    rewritten(saved, lambda weights: weights)
    card_path(saved).write_text(json.dumps({**read_card(saved), **change}))
    with pytest.raises(ValueError, match=rf"(?s)model\.(json|safetensors).*{message}.*Restore the file"):
        load(saved)


def test_a_configuration_that_fits_but_is_not_the_one_of_the_weights(saved):
    """The number of loops changes no shape: only what the weights carry tells."""
    card = read_card(saved)
    card["config"]["num_loops"] += 1
    card_path(saved).write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"model\.json.*not those that the weights were saved with"):
        load(saved)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, '{"name": "of another program"}'])
def test_broken_card(saved, text):
    card_path(saved).write_text(text)
    with pytest.raises(ValueError, match=r"model\.json.*Restore the file"):
        load(saved)


@pytest.mark.parametrize("value", [torch.nan, 1e300])
def test_weights_that_are_not_finite_are_not_saved(saved, value):
    before = saved.read_bytes()
    model = RangeFormer.untrained(SMALL).double()
    model.slot_gains[0] = value
    with pytest.raises(ValueError, match=r"finite in float32. \['slot_gains'\] are not; nothing was written"):
        save(model, saved)
    assert saved.read_bytes() == before


def test_folders_in_place_of_files(saved, tmp_path):
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"only a folder .*folder\.safetensors"):
        load(folder)
    with pytest.raises(IsADirectoryError, match=r"folder\.safetensors' is a folder"):
        save(RangeFormer.untrained(SMALL), folder)
    with pytest.raises(ValueError, match=r"must be a \.safetensors file"):
        load(tmp_path)
    card_path(saved).unlink()
    card_path(saved).mkdir()
    with pytest.raises(FileNotFoundError, match=r"only a folder .*model\.json"):
        load(saved)


def test_wrong_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        save(RangeFormer.untrained(SMALL), tmp_path / "model.pt")


def test_a_shipped_name_is_its_file():
    first, second = load(), load("features")
    assert isinstance(second, RangeFormer)
    assert all(torch.equal(second.state_dict()[name], w) for name, w in first.state_dict().items())


def test_shipped_weights_that_are_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(SHIPPED, "galerkin", tmp_path / "galerkin-v1.safetensors")
    with pytest.raises(FileNotFoundError, match=r"'galerkin' are not installed.*galerkin-v1.*--config galerkin --out"):
        load("galerkin")


@pytest.mark.parametrize("name", ["gallerkin", "model.pt"])
def test_neither_a_name_nor_a_weights_file(name):
    with pytest.raises(ValueError, match=rf"\.safetensors file or one of \['features'.*Got '{name}'"):
        load(name)


class Other(torch.nn.Module):
    """A model that draws from torch's global generator when it is built."""

    def __init__(self, config: RangeFormerConfig):
        super().__init__()
        self.config = config
        self.layer = torch.nn.Linear(config.channels, 2)


def test_the_card_names_the_class(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "Other", (RangeFormerConfig, Other))
    path, model = tmp_path / "other.safetensors", Other(SMALL)
    save(model, path)
    assert read_card(path)["model"] == "Other"
    state = torch.random.get_rng_state()
    loaded = load(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert isinstance(loaded, Other)
    assert torch.equal(loaded.layer.weight, model.layer.weight)


def test_a_class_that_is_not_known(tmp_path, saved):
    with pytest.raises(TypeError, match=r"`model` must be of a class that `load` can build.*Got Other"):
        save(Other(SMALL), tmp_path / "other.safetensors")
    card_path(saved).write_text(json.dumps({**read_card(saved), "model": "Unheard"}))
    with pytest.raises(ValueError, match=r"model\.json.*its model is 'Unheard', this version knows \[.*'RangeFormer'"):
        load(saved)


def test_the_card_of_another_file_can_be_passed_on(saved, tmp_path):
    """Its notes stay, its digest and configuration do not."""
    path = tmp_path / "other.safetensors"
    save(RangeFormer.untrained(), path, read_card(saved))
    assert read_card(path)["seed"] == 1
    assert load(path).config == RangeFormerConfig()


def test_cards_without_a_class_are_of_the_first_one(saved):
    card = read_card(saved)
    del card["model"]
    card_path(saved).write_text(json.dumps(card))
    assert isinstance(load(saved), RangeFormer)


def test_another_package_registers_its_models(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MODELS", dict(MODELS))
    with pytest.raises(TypeError, match="`model` must be of a class that .* Got Foreign"):
        save(Foreign(ForeignConfig()), tmp_path / "w.safetensors")
    register(Foreign, ForeignConfig, Foreign)
    register(Foreign, ForeignConfig, Foreign)
    save(Foreign(ForeignConfig(3)), tmp_path / "w.safetensors")
    assert load(tmp_path / "w.safetensors").config == ForeignConfig(3)
    with pytest.raises(
        ValueError, match=r"must have a name of its own\. rangeformer\.models\.features has a model 'RangeFormer'"
    ):
        register(type("RangeFormer", (Foreign,), {}), ForeignConfig, Foreign)


def test_a_model_of_a_package_that_is_not_imported(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "MODELS", dict(MODELS))
        register(Foreign, ForeignConfig, Foreign)
        save(Foreign(ForeignConfig()), path)
    package = Foreign.__module__.partition(".")[0]
    with pytest.raises(ValueError, match=rf"its model 'Foreign' belongs to '{package}'\. Import {package} first"):
        load(path)


def test_every_model_of_the_table_is_where_it_says():
    for name in known_models():
        config_class, build = checkpoint._entry(name)
        assert callable(build)
        assert hasattr(config_class, "from_fields"), name
