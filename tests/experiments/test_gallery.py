import re

import pytest
from PIL import Image

from experiments import gallery
from rangeformer import distributions as structured

DISTRIBUTIONS = [law for laws in gallery.KINDS.values() for law in laws]


def test_the_page_says_what_the_docstrings_say():
    text = gallery.PAGE.read_text()
    assert gallery.render(text) == text, "run `python -m experiments.gallery`"


def test_every_law_is_on_the_page_once():
    registries = (
        structured.DISTRIBUTIONS,
        structured.SYMMETRIC_DISTRIBUTIONS,
        structured.SQUARE_DISTRIBUTIONS,
        structured.RECTANGULAR_DISTRIBUTIONS,
    )
    assert sorted(DISTRIBUTIONS) == sorted(name for registry in registries for name in registry)
    assert sorted(re.findall(r"^\| `(\w+)` \|", gallery.PAGE.read_text(), flags=re.MULTILINE)) == sorted(DISTRIBUTIONS)


@pytest.mark.parametrize("law", DISTRIBUTIONS)
def test_every_law_states_formula_and_parameters(law):
    formula, drawn = gallery.describe(law)
    assert formula
    assert drawn


def test_a_law_without_parameters_in_its_docstring_is_told_so(monkeypatch):
    monkeypatch.setattr(structured.DISTRIBUTIONS["beam"], "__doc__", "B.")
    with pytest.raises(ValueError, match="docstring of distribution 'beam' must have one paragraph"):
        gallery.describe("beam")


def test_the_example_on_the_page_runs():
    (code,) = re.findall(r"```python\n(.*?)```", gallery.PAGE.read_text(), flags=re.DOTALL)
    exec(code, {})


def test_the_picture_is_drawn_beside_the_page(tmp_path, monkeypatch):
    # two kinds stand for all: axes are what takes the time
    monkeypatch.setattr(gallery, "KINDS", {kind: gallery.KINDS[kind] for kind in ("engineering", "rectangular")})
    page = tmp_path / "laws.md"
    page.write_text("<!-- distributions: engineering -->\nold\n<!-- end of distributions -->\n")
    gallery.main(gallery.Config(size=12, seed=0, num_draws=2), page)
    assert "old" not in page.read_text()
    with Image.open(tmp_path / "laws.png") as picture:
        assert picture.size[0] > 200


def test_the_committed_picture_is_small():
    assert gallery.PAGE.with_suffix(".png").stat().st_size < 1.5e6
