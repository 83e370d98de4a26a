from experiments.gp import preconditioners


def test_smoke(tmp_path):
    result = preconditioners.main(preconditioners.Config(output=tmp_path, smoke=True))
    assert (tmp_path / "preconditioners-diamonds-n300.json").exists()
    assert len(result["runs"]) == 24
    assert all(run["converged"] and run["worst_residual"] <= 1e-6 for run in result["runs"])
    header, rows = preconditioners.comparison(result)
    assert all(len(row) == len(header) for row in rows)
