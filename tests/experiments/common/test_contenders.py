import math

import pytest
import torch

import rangeformer as rf
from experiments.common.contenders import (
    CANNOT_RUN,
    OPERATIONS,
    Direct,
    Krylov,
    Ours,
    Paper,
    Price,
    contenders,
    problem,
)
from experiments.common.measures import relative_error
from experiments.common.models import members, paper_models
from rangeformer.baselines import ScaledPaperRangeFormer
from rangeformer.models.learned_krylov import LearnedKrylovConfig, LearnedKrylovModel
from tests.helpers import conditioned, seeded, with_spectrum

PLENTY = Price(100, 100)


def test_problem_has_the_exact_answers():
    A = conditioned(15, 1e3)
    case = problem("any", A, seeded())
    assert case.cond == pytest.approx(1e3, rel=1e-6)
    torch.testing.assert_close(A @ case.truth["solve"], case.rhs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(case.truth["inverse"], torch.linalg.inv(A))
    torch.testing.assert_close(case.truth["logdet"], torch.logdet(A))
    torch.testing.assert_close(case.truth["eigenvalues"], torch.linalg.eigvalsh(A))


def test_truth_is_better_than_float64_alone():
    values = torch.logspace(0, -9, 40, dtype=torch.float64)
    case = problem("any", with_spectrum(values), seeded())
    plain = torch.cholesky_solve(case.rhs, torch.linalg.cholesky(case.matrix))
    # the residual is what refinement makes small, and the oracle's own error becomes visible
    refined, unrefined = (float((case.rhs - case.matrix @ x).abs().max()) for x in (case.truth["solve"], plain))
    assert refined <= unrefined
    assert relative_error(plain, case.truth["solve"]) > 1e-12


@pytest.mark.parametrize("eigenvalue", [0.0, -1.0])
def test_singular_and_indefinite_matrices_have_eigenvalues_only(eigenvalue):
    A = torch.diag(torch.tensor([eigenvalue, 1.0, 2.0], dtype=torch.float64))
    case = problem("any", A, seeded())
    assert list(case.truth) == ["eigenvalues"]
    assert case.cond == math.inf


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_exact_column_is_exact(operation):
    """The oracle, classical methods that may do n steps, and ours once the space is complete."""
    case = problem("any", conditioned(20, 10.0), seeded())
    ours = Ours("ours", LearnedKrylovModel.untrained(LearnedKrylovConfig(channels=8, num_loops=4)))
    columns = [Direct(), Krylov("", "passes"), Krylov("", "matvecs"), ours]
    if operation in ("solve", "inverse"):
        columns.append(Krylov("", "passes", preconditioned=True))
    price = Price(100, 100 * case.columns(operation).shape[-1])
    for column in columns:
        answer = column.answer(case, operation, price)
        assert relative_error(answer.value, case.truth[operation]) < 1e-9
        assert not answer.reported


@pytest.mark.parametrize("currency", ["passes", "matvecs"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_classical_columns_pay_no_more_than_the_price(currency, operation):
    case = problem("any", conditioned(64, 1e4), seeded())
    price = Price(5, 5 * case.columns(operation).shape[-1] + 7)
    paid = Krylov("", currency).answer(case, operation, price).price
    if currency == "passes":
        assert 0 < paid.num_passes <= price.num_passes
    assert 0 < paid.num_matvecs <= price.num_matvecs


def test_ours_counts_its_reads_and_reports_what_it_misses():
    case = problem("any", conditioned(60, 1e6), seeded())
    answer = Ours("ours", LearnedKrylovModel.untrained(LearnedKrylovConfig(channels=4, num_loops=2))).answer(
        case, "solve", Price()
    )
    assert answer.reported
    assert answer.price.num_passes >= 2
    assert answer.price.num_matvecs >= 8


@pytest.mark.parametrize("operation", ["solve", "logdet", "inverse"])
@pytest.mark.parametrize("name", ["pure, trained", "Galerkin, trained"])
def test_ours_reports_that_the_zero_matrix_is_singular(operation, name):
    case = problem("zero", torch.zeros(6, 6, dtype=torch.float64), seeded())
    assert Ours(name, members("", "", tiny=True)[name]).answer(case, operation, Price()).reported


def test_direct_reports_that_the_zero_matrix_is_singular():
    case = problem("zero", torch.zeros(6, 6, dtype=torch.float64), seeded())
    assert all(Direct().answer(case, operation, Price()).reported for operation in ("solve", "logdet", "inverse"))


def test_paper_cannot_run_where_its_rows_do_not_fit_or_there_is_no_network():
    models = paper_models(tiny=True)
    case = problem("any", conditioned(21, 10.0), seeded())
    assert Paper("paper", dict(models)).answer(case, "solve", Price()) is CANNOT_RUN
    small = problem("any", conditioned(20, 10.0), seeded())
    assert Paper("paper", {"solve": models["solve"]}).answer(small, "logdet", Price()) is CANNOT_RUN


@pytest.mark.parametrize("operation", OPERATIONS)
def test_paper_answers_in_the_shape_of_the_truth(operation):
    models = paper_models(tiny=True)
    case = problem("any", conditioned(12, 10.0), seeded())
    for wrapped in (models, {name: ScaledPaperRangeFormer(model) for name, model in models.items()}):
        answer = Paper("paper", dict(wrapped)).answer(case, operation, Price())
        assert answer.value.shape == case.truth[operation].shape
        assert not answer.reported


def test_without_checkpoints_the_paper_takes_no_part(tmp_path):
    assert paper_models(tmp_path) == {}
    labels = [column.label for column in contenders(members("", "", tiny=True), {}, 2)]
    assert not any(label.startswith("paper") for label in labels)


def test_checkpoints_are_read_by_operation(tmp_path):
    model = paper_models(tiny=True)["solve"]
    rf.save(model, tmp_path / "paper-solve.safetensors")
    assert list(paper_models(tmp_path)) == ["solve"]


def test_weights_that_are_not_there_are_left_out(tmp_path, capsys):
    found = members(str(tmp_path / "no.safetensors"), str(tmp_path / "none.safetensors"))
    assert list(found) == ["pure, untrained", "Galerkin, untrained"]
    assert "takes part untrained only" in capsys.readouterr().out
