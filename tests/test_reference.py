"""Nothing that was recorded before the redesign has changed: bit for bit where the machine rounds as the recording one.

Counts of reads may differ where `CHANGED_COUNTS` says why, and nowhere else.
"""

import json

import pytest
import torch

from tests.reference.calls import CALLS
from tests.reference.record import RECORDED, fingerprint, outcome

RECORD = json.loads(RECORDED.read_text())
COUNTS = {"num_matvecs", "num_passes", "num_entries"}
_DENSE = "the dense fallback counts the n^2 entries that it reads"
CHANGED_COUNTS: dict[str, str] = dict.fromkeys(
    (
        "solve too few iterations, fallback True float32",
        "solve 70 columns float32",
        "solve indefinite float32",
        "solve batch float32",
        "inv_quad_logdet rangeformer float32",
        "inv_quad_logdet rpcholesky float32",
        "inv_quad_logdet None float32",
        "inv_quad_logdet vector, too few iterations float32",
        "logdet exact float32",
        "logdet batch float32",
        "inv_quad_logdet batch float32",
        "learned solve float32",
        "inverse_matmul float32",
        "solve tight float64",
        "solve too few iterations, fallback True float64",
        "solve indefinite float64",
        "solve batch float64",
        "inv_quad_logdet vector, too few iterations float64",
        "logdet batch float64",
        "inv_quad_logdet batch float64",
        "learned solve float64",
    ),
    _DENSE,
)
"""Name of a call -> why it reads more or less than it did."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def same_arithmetic(one_thread):
    return fingerprint() == RECORD["fingerprint"]


def test_every_call_has_been_recorded():
    assert list(CALLS) == list(RECORD["calls"])
    assert len(CALLS) >= 60
    assert set(CHANGED_COUNTS) <= set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_nothing_has_changed(name, same_arithmetic):
    found, known = json.loads(json.dumps(outcome(name))), RECORD["calls"][name]
    assert set(found) == set(known)
    for key, value in known.items():
        if key.split(".")[-1] in COUNTS:
            assert found[key] == value or name in CHANGED_COUNTS, f"{key}: {value} before, {found[key]} now"
        elif same_arithmetic:
            assert found[key] == value, key
        elif isinstance(value, dict):
            assert found[key]["shape"] == value["shape"], key
            pairs = [torch.tensor([float(x) for x in one["entries"]]) for one in (found[key], value)]
            scale = pairs[1].nan_to_num().abs().amax() if len(pairs[1]) else 1.0
            assert torch.allclose(*pairs, rtol=0, atol=float(2e-2 * scale) + 1e-30, equal_nan=True), key


def test_a_changed_digit_would_be_noticed():
    name = "logdet exact float64"
    found = json.loads(json.dumps(outcome(name)))
    changed = json.loads(json.dumps(found))
    changed["value"]["digest"] = "0" * 16
    assert found == json.loads(json.dumps(outcome(name)))
    assert changed != found
