"""The main job and the step comparison run end to end, from the command line's options to the files."""

import json

import pytest

from experiments import gp_regression
from experiments.common.options import parse
from experiments.gp.methods import METHODS


def run(tmp_path, *options: str) -> dict:
    return gp_regression.main(parse(gp_regression.Config, ["--smoke", "--output", str(tmp_path), *options]))


def test_smoke_writes_table_json_and_picture(tmp_path, capsys):
    result = run(tmp_path)
    assert json.loads((tmp_path / "gp_regression-diamonds.json").read_text()) == result
    assert (tmp_path / "gp_regression-diamonds.png").stat().st_size > 10_000
    assert list(result["methods"]) == list(METHODS)
    printed = capsys.readouterr().out
    for method in result["methods"].values():
        assert method["label"] in printed
    ours = result["methods"]["rangeformer"]
    assert ours["end"]["gradient_error"] < 2e-2
    assert ours["end"]["loss_error"] < 5e-3
    assert ours["prediction"]["rmse"] == pytest.approx(result["methods"]["cholesky"]["prediction"]["rmse"], rel=1e-2)


def test_step_comparison_says_how_wrong_each_method_is(tmp_path, capsys):
    result = run(tmp_path, "--step-only", "--dtype", "float64", "--methods", "cholesky,rangeformer")
    written = json.loads((tmp_path / "gp_step-diamonds-n900-float64.json").read_text())
    assert written == result
    methods = result["methods"]
    assert list(methods) == ["cholesky", "rangeformer", "cholesky-by-hand"]
    assert max(methods["cholesky"]["gradient_errors"]) < 1e-10
    assert max(methods["rangeformer"]["gradient_errors"]) < 1e-2
    assert len(methods["rangeformer"]["seconds"]) == 2
    assert "RangeFormer's first run" in capsys.readouterr().out


def test_a_table_of_ones_own(tmp_path):
    rows = [f"{a},{b},{a * 0.5 + b % 7}" for a in range(40) for b in range(30)]
    (tmp_path / "own.csv").write_text("\n".join(["first,second,third", *rows]))
    result = run(tmp_path, "--data", str(tmp_path / "own.csv"), "--methods", "rangeformer", "--kernel", "rbf")
    assert result["dataset"] == {"name": "own", "n": 900, "num_test": 100, "num_features": 2}
    assert (tmp_path / "gp_regression-own.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--methods", "magic"], "`--methods` must name some of"), (["--n", "0"], "must be at least 1")],
)
def test_bad_options_say_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        parse(gp_regression.Config, options)
