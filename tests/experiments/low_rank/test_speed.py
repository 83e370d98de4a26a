"""The script that times whole calls runs end to end, and divides by the right baseline."""

import json

import pytest

from experiments.common.options import parse
from experiments.low_rank import speed as sketching_speed


def test_smoke_writes_tables_and_json(tmp_path):
    result = sketching_speed.main(parse(sketching_speed.Config, ["--smoke", "--output", str(tmp_path)]))
    assert json.loads((tmp_path / "sketching-speed.json").read_text()) == json.loads(json.dumps(result))
    for view in sketching_speed.VIEWS:
        assert sketching_speed.caption(result, view)
        header, rows = sketching_speed.comparison(result, view)
        assert rows
        assert all(len(row) == len(header) for row in rows)
    assert {row["dtype"] for row in result["rows"]} == {"float32", "float64"}
    passes = {row["method"]: row["passes"] for row in result["rows"]}
    for method, base in sketching_speed._EQUAL.items():
        assert passes[method] == passes[base]


def test_times_are_over_gaussian_of_as_many_passes():
    methods = {*sketching_speed._EQUAL, *sketching_speed._EQUAL.values(), *sketching_speed._AIMED}
    rows = [
        {"size": 2000, "dtype": "float64", "method": name, "passes": 2, "entries": 0.1, "seconds": 2.0, "excess": 0.25}
        for name in sorted(methods)
    ]
    for row in rows:
        row["seconds"] = {"gaussian": 1.0, "gaussian, 1 power iteration": 4.0}.get(row["method"], 2.0)
    table = {cells[0]: cells[1:] for cells in sketching_speed.comparison({"rows": rows}, "equal")[1]}
    assert table["rangeformer, 2 passes"] == ["2.00"]
    assert table["rangeformer, 1 power iteration, 2 passes"] == ["0.50"]
    assert sketching_speed.comparison({"rows": rows}, "scikit-learn")[1][0][2] == "0.2500, 1.00"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "9000"], "`--sizes` must be between 20 rank and 5000"),
        (["--rank", "0"], "`--rank` and `--num-turns` must be at least 1"),
    ],
)
def test_bad_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse(sketching_speed.Config, arguments)
