"""The comparison runs end to end; its rivals answer correctly, and its tables say what its points say."""

import json
import math
from dataclasses import replace

import pytest
import scipy.sparse
import torch

from experiments.common.options import parse
from experiments.krylov import comparison as krylov_comparison
from experiments.krylov import eigenpairs, logdets, solves, views
from experiments.krylov.contest import Method, Run, measure
from experiments.krylov.matrices import FOLDER, KERNEL, NUM_PAIRS, Case, folder_cases, spectrum_case, truth
from tests.helpers import kernel, normal


def dense_case(n: int = 120) -> Case:
    noise = 1e-2
    return Case("one", KERNEL, kernel(n, noise=0.0), noise, normal(n, 16))


def sparse_case(n: int = 100) -> Case:
    matrix = scipy.sparse.csr_array(scipy.sparse.diags_array([-1.0, 2.2, -1.0], offsets=[-1, 0, 1], shape=(n, n)))
    return Case("two", FOLDER, matrix, None, normal(n, 16))


def dearest(method: Method) -> Method:
    """With its last setting alone, which the others lead to."""
    return replace(method, settings=method.settings[-1:])


CASES = [pytest.param(dense_case, id="dense"), pytest.param(sparse_case, id="sparse")]


@pytest.mark.parametrize("make", CASES)
def test_truth_is_that_of_lapack(make):
    case = make()
    found, eigenvalues = truth(case), torch.linalg.eigvalsh(case.dense(torch.float64)).flip(0)
    assert found.logdet == pytest.approx(float(eigenvalues.log().sum()), rel=1e-10)
    torch.testing.assert_close(found.eigenvalues, eigenvalues[:NUM_PAIRS], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("num_columns", [1, 16])
def test_everybody_solves(make, num_columns):
    case = make()
    error = solves.residual(case, num_columns)
    for method in solves.methods(num_columns, pure=None):
        if method.suits(case):
            tolerance = 1e-6 if isinstance(method.settings[0], float) else 1e-10
            points = measure(case, dearest(method), error, [0], stops=False)
            assert points[-1]["error"] <= 2 * tolerance, method.label
            assert points[-1]["setup_seconds"] <= points[-1]["seconds"]
            assert method.is_exact or points[-1]["passes"] > 0, method.label


@pytest.mark.parametrize("make", CASES)
def test_everybody_estimates_the_logdet(make):
    case = make()
    error = logdets.error_per_row(case, truth(case).logdet)
    for method in logdets.methods():
        if method.suits(case):
            points = measure(case, dearest(method), error, [0, 1], stops=False)
            assert points[-1]["error"] < 0.1, method.label
            assert method.is_exact or all(point["matvecs"] > 0 for point in points), method.label


@pytest.mark.parametrize("make", CASES)
def test_everybody_finds_the_leading_pairs(make):
    case = make()
    exact = truth(case)
    error = eigenpairs.worst_pair(case, exact)
    found = {
        method.label: measure(case, dearest(method), error, [0], stops=False)[-1]["error"]
        for method in eigenpairs.methods(float(exact.eigenvalues[0]))
    }
    assert found["RangeFormer"] < 1e-10
    assert found["eigsh"] < 1e-5
    # the tridiagonal matrix has no gaps: subspace iterations cannot be near
    assert all(value < (1e-2 if case.kind == KERNEL else 0.2) for value in found.values()), found


def test_a_pair_that_was_passed_over_is_an_error_though_residuals_vanish():
    case = spectrum_case("power law j^-2", 100, torch.float64, torch.device("cpu"), 0)
    exact = truth(case)
    values, vectors = torch.linalg.eigh(case.dense(torch.float64))
    error = eigenpairs.worst_pair(case, exact)
    assert error((values[-NUM_PAIRS:], vectors[:, -NUM_PAIRS:])) < 1e-12
    assert error((values[-NUM_PAIRS - 1 : -1], vectors[:, -NUM_PAIRS - 1 : -1])) > 0.1


def test_a_rival_that_fails_is_recorded_as_such_and_asked_no_further():
    def fails(run: Run, setting: float) -> float:
        raise RuntimeError("no")

    case = dense_case()
    points = measure(case, Method("fails", "classical", (1e-2, 1e-4), fails), float, [0], stops=True)
    assert len(points) == 1
    assert points[0]["error"] is None
    assert views.cheapest(points, "solve-1") is None


def test_folder_matrices_are_those_large_enough(tmp_path):
    for n in (50, 950):
        A = scipy.sparse.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(n, n)).tocsr()
        scipy.sparse.save_npz(tmp_path / f"tri{n}.npz", A)
    found = folder_cases(tmp_path, torch.float32, torch.device("cpu"), 0)
    assert [case.num_rows for case in found] == [950]
    assert found[0].rhs.dtype == torch.float32
    assert found[0].operator().dtype == torch.float32


def test_the_quickest_of_each_side_meets_in_the_tables():
    def row(method: str, family: str, seconds: float, error: float | None, *, is_exact: bool = False) -> dict:
        point = {"setting": 1e-6, "seconds": seconds, "setup_seconds": 0.0, "passes": 3, "matvecs": 3, "entries": 0.0}
        points = [point | {"error": error}]
        return {
            "problem": "solve-1",
            "case": "one",
            "method": method,
            "family": family,
            "is_exact": is_exact,
            "points": points,
        }

    result = {
        "config": {"dtype": "float64", "device": "cpu", "seed": 0},
        "clock": "perf_counter",
        "rows": [
            row("a", "classical", 1.0, 1e-2),
            row("b", "classical", 2.0, 1e-7),
            row("RangeFormer", "ours", 3.0, 1e-7),
            row("Cholesky", "classical", 6.0, 1e-15, is_exact=True),
        ],
    }
    (duel,) = views.duels(result)
    assert views.ratio(duel, "iterations") == 1.5
    assert views.ratio(duel, "dense") == 0.5
    _, lines = views.comparison(result, "losses")
    assert lines == [["one right-hand side: one", "RangeFormer, 3.00 s", "0%", "b, 2.00 s", "1.50", "6.00 s", "0.50"]]
    _, reached = views.comparison(result, "solve-1")
    assert ["a", "not reached"] in reached
    assert views.ratio(duel | {"ours": None}, "dense") == math.inf


def test_smoke_writes_table_json_and_pictures(tmp_path):
    options = ["--smoke", "--sizes", "150", "--spectrum-size", "100", "--output", str(tmp_path)]
    result = krylov_comparison.main(parse(krylov_comparison.Config, options))
    written = json.loads((tmp_path / "krylov_comparison.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert {case["kind"] for case in written["cases"]} == {"spectrum", "kernel"}
    for problem in krylov_comparison.PROBLEMS:
        assert (tmp_path / f"krylov_comparison-{problem}.png").stat().st_size > 10_000
    for view in views.VIEWS:
        header, rows = views.comparison(written, view)
        assert all(len(row) == len(header) for row in rows)
        assert views.caption(written, view)


def test_a_stopped_run_goes_on_where_it_was(tmp_path, monkeypatch):
    options = [
        "--smoke",
        "--sizes",
        "120",
        "--spectrum-size",
        "100",
        "--problems",
        "solve-1",
        "--output",
        str(tmp_path),
    ]
    config = parse(krylov_comparison.Config, options)
    assert not krylov_comparison.main(replace(config, minutes=0.0))["complete"]
    stopped = krylov_comparison.main(replace(config, minutes=1e-9))
    assert stopped["cases"] == []
    whole = krylov_comparison.main(config)
    assert whole["complete"]
    # as if it had been stopped after the first matrix
    first = whole["cases"][0]["name"]
    part = whole | {"complete": False, "cases": whole["cases"][:1]}
    part["rows"] = [row for row in whole["rows"] if row["case"] == first]
    (tmp_path / "krylov_comparison.json").write_text(json.dumps(part))
    measured = []
    compare = krylov_comparison.compare
    monkeypatch.setattr(
        krylov_comparison, "compare", lambda case, *rest: measured.append(case.name) or compare(case, *rest)
    )
    again = krylov_comparison.main(config)
    assert measured == [case["name"] for case in whole["cases"][1:]]
    assert again["complete"]
    assert len(again["rows"]) == len(whole["rows"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--problems", "magic"], "`--problems` must name some of"),
        (["--sizes", "10"], "must be at least 100"),
        (["--sizes", "many"], "must be numbers with commas"),
    ],
)
def test_bad_options_say_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        parse(krylov_comparison.Config, options)
