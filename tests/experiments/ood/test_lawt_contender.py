"""LAWT beside the other columns: at its size only, raw or brought to the scale of its training."""

import json

import pytest
import torch

import rangeformer as rf
from experiments.common.contenders import CANNOT_RUN, Price, problem
from experiments.lawt import contender as lawt_contender
from experiments.lawt.contender import Lawt, lawt_columns, tiny_column
from rangeformer.models.checkpoint import card_path
from tests.helpers import conditioned, seeded


@pytest.fixture
def exact(monkeypatch):
    """A network that answers exactly where the entries have about the root mean square two, and nonsense elsewhere."""

    def predict(model, matrices, task):
        assert task == "eigenvalues"
        values = torch.linalg.eigvalsh(matrices).flip(-1).unsqueeze(-1)
        known = (matrices.square().mean((1, 2)).sqrt() - 2).abs() < 1e-9
        return values.masked_fill(~known.view(-1, 1, 1), torch.nan), known

    monkeypatch.setattr(lawt_contender, "predict", predict)


def test_the_scaled_column_answers_at_any_scale_and_the_raw_one_reports(exact):
    case = problem("any", 1e-3 * conditioned(3, 10.0), seeded())
    scaled = Lawt("", tiny_column().model, 3, size=2.0).answer(case, "eigenvalues", Price())
    assert scaled.value is not None
    assert torch.allclose(scaled.value, case.truth["eigenvalues"])
    assert not scaled.reported
    raw = Lawt("", tiny_column().model, 3).answer(case, "eigenvalues", Price())
    assert raw.reported
    assert raw.value is not None
    assert bool(raw.value.isnan().all())


def test_zero_has_no_scale(exact):
    case = problem("zero", torch.zeros(3, 3, dtype=torch.float64), seeded())
    assert Lawt("", tiny_column().model, 3, size=2.0).answer(case, "eigenvalues", Price()).reported


@pytest.mark.parametrize(("operation", "n"), [("solve", 3), ("eigenvalues", 4)])
def test_other_operations_and_sizes_cannot_run(operation, n):
    case = problem("any", conditioned(n, 10.0), seeded())
    assert tiny_column().answer(case, operation, Price()) is CANNOT_RUN


def test_columns_of_a_folder(tmp_path):
    source = {"tasks": ["eigenvalues"], "rows": [3, 3], "scale": [10, 10]}
    file = tmp_path / "lawt-eigenvalues-abs_laplace.safetensors"
    rf.save(tiny_column().model, file, {"training": {"settings": {"source": source}}})
    raw, scaled = lawt_columns(tmp_path)
    assert (raw.label, scaled.label) == ("LAWT (abs laplace)", "LAWT (abs laplace), scaled")
    assert raw.num_rows == 3
    assert scaled.size == pytest.approx(10 / 3**0.5)
    card = json.loads(card_path(file).read_text())
    card["training"]["settings"]["source"]["rows"] = [2, 3]
    card_path(file).write_text(json.dumps(card))
    with pytest.raises(ValueError, match="with 2 to 3 rows"):
        lawt_columns(tmp_path)
