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
_CERTIFICATE = (
    "`converged` now says whether the value meets rtol, whoever produced it, and residuals that rounding hid are "
    "recomputed: fewer fallbacks, other digits"
)
CHANGED_ANSWERS: dict[str, str] = dict.fromkeys(
    (
        "solve 70 columns float32",
        "solve indefinite float32",
        "solve batch float32",
        "inv_quad_logdet rangeformer float32",
        "inv_quad_logdet rpcholesky float32",
        "inv_quad_logdet None float32",
        "inv_quad_logdet vector, too few iterations float32",
        "inv_quad_logdet batch float32",
        "solve tight float64",
        "solve too few iterations, fallback True float64",
        "solve indefinite float64",
        "solve batch float64",
        "inv_quad_logdet vector, too few iterations float64",
        "inv_quad_logdet batch float64",
        "learned solve float64",
    ),
    _CERTIFICATE,
)
CHANGED_ANSWERS |= dict.fromkeys(
    (
        "logdet batch float32",
        "logdet batch float64",
        "logdet exact float64",
        "gradient of logdet 100 float64",
        "gradient of inv_quad_logdet 100 float64",
        "inv_quad_logdet rangeformer float64",
    ),
    "up to 256 rows the value is that of a scaled Cholesky factor, with a bound of its rounding; another order of sums",
)
CHANGED_ANSWERS |= dict.fromkeys(
    ("gp training float32", "gp prediction float32", "gp training float64", "gp prediction float64"),
    "solutions are as accurate as the gradients made of them need",
)
"""Name of a call -> why its evidence is another; its values stay within 2 % of the largest entry."""
DIAGONAL = 600
"""Rows of the largest matrix: residuals bound their rounding by the diagonal, which is read and counted."""


@pytest.fixture(scope="module")
def same_arithmetic():
    return fingerprint() == RECORD["fingerprint"]


def test_every_call_has_been_recorded():
    assert list(CALLS) == list(RECORD["calls"])
    assert len(CALLS) >= 60
    assert set(CHANGED_COUNTS) | set(CHANGED_ANSWERS) <= set(CALLS)


def differences(found: dict, known: dict, *, same_arithmetic: bool, counts_may_differ: bool) -> list[str]:
    """What of a call is not as it was recorded."""
    if set(found) != set(known):
        return sorted(set(found) ^ set(known))
    wrong = []
    for key, value in known.items():
        if key.split(".")[-1] in COUNTS:
            diagonal = key.endswith("num_entries") and 0 <= found[key] - value <= DIAGONAL
            equal = found[key] == value or diagonal or counts_may_differ
        elif same_arithmetic or not isinstance(value, dict):
            equal = found[key] == value or not same_arithmetic
        else:
            equal = found[key]["shape"] == value["shape"] and near(found[key]["entries"], value["entries"])
        wrong += [] if equal else [f"{key}: {value} before, {found[key]} now"]
    return wrong


def near(found: list[str], known: list[str]) -> bool:
    """Within 2 % of the largest entry: what another processor's rounding may make of it."""
    first, second = (torch.tensor([float(x) for x in one]) for one in (found, known))
    scale = float(second.nan_to_num().abs().amax()) if len(second) else 1.0
    return torch.allclose(first, second, rtol=0, atol=2e-2 * scale + 1e-30, equal_nan=True)


@pytest.mark.parametrize("name", CALLS)
def test_nothing_has_changed(name, same_arithmetic):
    found = json.loads(json.dumps(outcome(name)))
    options = {"same_arithmetic": same_arithmetic, "counts_may_differ": name in CHANGED_COUNTS}
    known = RECORD["calls"][name]
    if name in CHANGED_ANSWERS:
        evidence = ("converged", "residual_norms", "standard_error", "error")
        values = [key for key, one in known.items() if isinstance(one, dict) and key.split(".")[-1] not in evidence]
        assert values
        found, known = ({key: one[key] for key in values} for one in (found, known))
        options["same_arithmetic"] = False
    assert not differences(found, known, **options)


def test_a_change_would_be_noticed():
    known = RECORD["calls"]["logdet exact float64"]
    options = {"same_arithmetic": True, "counts_may_differ": False}
    assert not differences(known, known, **options)
    digit = json.loads(json.dumps(known))
    digit["value"]["digest"] = "0" * 16
    assert differences(digit, known, **options)
    count = {**known, "num_passes": known["num_passes"] + 1}
    assert differences(count, known, **options)
    assert not differences(count, known, same_arithmetic=True, counts_may_differ=True)
    assert differences({key: value for key, value in known.items() if key != "value"}, known, **options)
    far = json.loads(json.dumps(known))
    far["value"]["entries"] = [repr(1.1 * float(x)) for x in far["value"]["entries"]]
    assert differences(far, known, same_arithmetic=False, counts_may_differ=False)
