"""Both sketching scripts run end to end, and their tables say what the rows hold."""

import json

import numpy as np
import pytest

from experiments.common.options import parse
from experiments.low_rank import benchmark as sketching_benchmark
from experiments.low_rank import image_compression
from experiments.low_rank import promises as sketching_promises
from experiments.low_rank import rows as sketching_rows
from experiments.low_rank import views as sketching_views
from experiments.low_rank.contenders import contenders
from experiments.low_rank.matrices import Case


@pytest.mark.parametrize(
    ("script", "name"), [(sketching_benchmark, "sketching-benchmark"), (image_compression, "image-compression")]
)
def test_smoke_writes_table_json_and_picture(tmp_path, script, name):
    result = script.main(parse(script.Config, ["--smoke", "--output", str(tmp_path)]))
    assert json.loads((tmp_path / f"{name}.json").read_text()) == json.loads(json.dumps(result))
    assert (tmp_path / f"{name}.png").stat().st_size > 5_000
    for view in sketching_views.VIEWS if script is sketching_benchmark else ("",):
        assert script.caption(result, view)
        header, rows = script.comparison(result, view)
        assert rows or view == "losses"
        assert all(len(row) == len(header) for row in rows)


def row(case: str, family: str, setting: str, excess: float, **changes) -> dict:
    found = {"case": case, "method": sketching_views.named(family, setting), "family": family, "setting": setting}
    found |= {"rank": 4, "fraction": 1.0, "seed": 0, "passes": 2 + 2 * (int(setting) if setting.isdigit() else 0)}
    return found | {"entries": 0.1, "seconds": 1.0, "excess": excess, "error": 0.1, "estimate": 0.1} | changes


def result() -> dict:
    """Two matrices: ours is four times better than both rivals on one, twice as bad as sampled rows on the other."""
    cases = {"good": (0.1, 0.4, 0.4), "bad": (0.2, 0.1, 0.8), "haar": (0.3, 0.3, 0.6)}
    rows = []
    for name, (ours, rival, gaussian) in cases.items():
        for setting in ("24 rows", "0", "1", "2"):
            rows.append(row(name, "rangeformer", setting, ours))
            rows.append(row(name, "rangeformer-untrained", setting, 2 * ours))
            rows.append(row(name, "sampled-rows", setting, rival))
            if setting != "24 rows":
                rows.append(row(name, "gaussian", setting, gaussian))
    shape = {"shape": [20, 12], "rank": 4}
    asked = {"case": "good", "seed": 0, "passes": 2, "error_over_tolerance": 1.0}
    return {
        "kind": "sketching-benchmark",
        "config": {"num_seeds": 1, "num_more_seeds": 30},
        "again": [
            {"case": "bad", "setting": setting, "ratio": 1.01, "standard_error": 0.02}
            for setting in ("24 rows", "0", "1", "2")
        ],
        "trained": True,
        "cases": [{"name": name, "is_control": name == "haar", **shape} for name in cases],
        "rows": rows,
        "tolerances": [
            {"factor": 0.9, "said": False, "met": False, **asked},
            {"factor": 1.3, "said": True, "met": True, **asked},
            {"factor": 1.05, "said": True, "met": False, **asked},
        ],
    }


def test_bars_are_ratios_of_what_was_measured():
    header, rows = sketching_promises.bars(result())
    table = {cells[0]: cells[1:] for cells in rows}
    assert header[2] == header[4] == "to be at most"
    assert table["Gaussian"] == ["0.250", "0.3", "0.250", "0.14"]
    assert table["sampled rows at equal reads"][0] == "0.707"
    assert table["itself untrained"][0] == "0.500"
    assert table["the better of Gaussian and sampled rows, worst matrix"][0] == "2.00 (bad)"
    assert table["the better of both, matrices of 2 beyond 1.05"][0] == "1, 0 by 2 standard errors"
    untrained = sketching_promises.bars(result() | {"trained": False})[1]
    assert "itself untrained" not in [cells[0] for cells in untrained]


def test_losses_are_listed_worst_first():
    _, rows = sketching_views.comparison(result(), "losses")
    assert {cells[0] for cells in rows} == {
        f"bad, {x}" for x in ("24 rows, 2 passes", "2 passes", "4 passes", "6 passes")
    }
    assert {cells[-2] for cells in rows} == {"2.00"}
    assert {cells[-1] for cells in rows} == {"1.01 +- 0.02"}


def test_losses_are_measured_again_with_other_seeds(monkeypatch):
    asked = []

    def runs(case, rank, share, method, seeds):
        asked.append((case.name, method.name, tuple(seeds)))
        return [{"excess": (0.3 if method.family == "rangeformer" else 0.2) + 0.01 * (seed % 2)} for seed in seeds]

    monkeypatch.setattr(sketching_benchmark, "_runs", runs)
    config = sketching_benchmark.Config(num_seeds=3, num_more_seeds=4)
    bad = Case("bad", np.eye(6), np.ones(6))
    found = sketching_benchmark.measure_again([bad], contenders(), result(), config)
    assert asked[0] == ("bad", "rangeformer, 24 rows", (3, 4, 5, 6))
    assert asked[1] == ("bad", "sampled-rows, 24 rows", (3, 4, 5, 6))
    assert [row["setting"] for row in found] == ["24 rows", "0", "1", "2"]
    assert found[0]["ratio"] == pytest.approx(0.305 / 0.205, rel=1e-4)
    deviation = (0.01 / 3**0.5) / 4**0.5
    assert found[0]["standard_error"] == pytest.approx(
        0.305 / 0.205 * np.hypot(deviation / 0.305, deviation / 0.205), rel=0.2
    )


def test_deviations_are_differences_of_means_over_their_standard_error():
    values = {"rangeformer": (0.3, 0.5), "gaussian": (0.1, 0.2)}
    rows = [row("one", name, "0", x, seed=seed) for name, pair in values.items() for seed, x in enumerate(pair)]
    expected = 0.25 / (0.02 / 2 + 0.005 / 2) ** 0.5
    assert sketching_rows.deviations(rows, "rangeformer", "gaussian") == {"one": pytest.approx(expected)}
    assert sketching_rows.deviations(rows[::2], "rangeformer", "gaussian") == {"one": 0.0}


def test_promises_count_what_was_kept():
    found = result()
    found["rows"][0] |= {"estimate": 0.2}
    table = dict(sketching_promises.promises(found)[1])
    assert table["error estimates of ours within 1.5 times the truth"] == "87.5 % of 8"
    assert table["the worst of them, over the truth"] == "2.00"
    assert table["tolerances met, or said not to be"] == "66.7 % of 3"
    assert table["tolerances that a rank-r can meet, met"] == "50.0 % of 2"
    assert table["Haar control, two passes: excess of ours over sampled rows' at equal reads"] == "1.000"
    assert table["Haar control, two passes: excess of ours over Gaussian's"] == "0.500"


def test_pictures_show_mean_passes_with_the_rows_read():
    points = {point["method"]: point for point in sketching_views.points(result()["rows"])}
    assert points["gaussian, 2 power iterations"]["passes"] == pytest.approx(6.1)
    assert points["rangeformer"]["excess"] == pytest.approx(0.02**0.5)
    assert points["rangeformer"]["time"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-seeds", "0"], "`--num-seeds` must be at least 1"),
        (["--fractions", "0,1"], "`--fractions` must be numbers"),
    ],
)
def test_bad_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse(sketching_benchmark.Config, arguments)
