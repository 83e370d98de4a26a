"""The GPU entry runs on a CPU, part by part, goes on where it was stopped; its operator and its step are right."""

import json
from pathlib import Path

import pytest
import torch
from linear_operator.operators import AddedDiagLinearOperator, ConstantDiagLinearOperator

import rangeformer as rf
from experiments.common.options import parse
from experiments.gpu import __main__ as gpu
from experiments.gpu import clock, machine, steps, views
from experiments.gpu.chunked import ChunkedKernel, Stored
from experiments.gpu.part import Request
from tests.helpers import normal

CPU = torch.device("cpu")
MEASURED_ELSEWHERE = ("regression", "krylov")  # run by tests of their own


def kernel(n: int = 60, *, stored: bool = False) -> ChunkedKernel:
    made = ChunkedKernel(normal(n, 3).requires_grad_(), torch.tensor(1.7, dtype=torch.float64).requires_grad_())
    return ChunkedKernel(made.inputs, made.scale, stored=Stored(made.computed())) if stored else made


def dense(made: ChunkedKernel) -> torch.Tensor:
    distance = 3**0.5 * torch.cdist(made.inputs, made.inputs, compute_mode="donot_use_mm_for_euclid_dist")
    return made.scale * (1 + distance) * torch.exp(-distance)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr("experiments.gpu.chunked._CHUNK_BYTES", {"cpu": 7 * 60 * 8})


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.usefixtures("small_chunks")
def test_chunked_products_entries_and_gradients_are_those_of_the_dense_kernel(stored):
    made, V = kernel(stored=stored), normal(60, 4, seed=1)
    K = dense(made)
    close = {"rtol": 1e-6, "atol": 1e-6}  # squares of distances are differences of squares
    torch.testing.assert_close(made @ V, K @ V, **close)
    torch.testing.assert_close(made.computed(), K.detach(), **close)
    torch.testing.assert_close(made.diagonal(), K.diagonal(), **close)
    rows, columns = torch.tensor([3, 5, 5]), torch.tensor([3, 0, 59])
    torch.testing.assert_close(made[rows, columns], K[rows, columns], **close)
    weights = normal(60, 4, seed=2)
    found, wanted = (
        torch.autograd.grad((weights * image).sum(), [made.inputs, made.scale], retain_graph=True)
        for image in (made @ V, K @ V)
    )
    torch.testing.assert_close(found, wanted, **close)


@pytest.mark.usefixtures("small_chunks")
def test_gpytorch_and_ours_can_read_the_chunked_kernel():
    made = kernel()
    A = AddedDiagLinearOperator(made, ConstantDiagLinearOperator(torch.tensor([0.1], dtype=torch.float64), 60))
    truth = dense(made) + 0.1 * torch.eye(60, dtype=torch.float64)
    rhs = normal(60, 1, seed=3)
    solution = rf.linear_solve(A, rhs, rtol=1e-5)
    torch.testing.assert_close(solution.value, torch.linalg.solve(truth, rhs), rtol=1e-3, atol=1e-3)
    factor = made.pivoted_cholesky(rank=60)
    torch.testing.assert_close(factor @ factor.mT, dense(made), rtol=1e-3, atol=1e-3)


def request_for(folder: Path) -> Request:
    return Request(device=CPU, folder=folder, deadline=float("inf"), smoke=True)


def test_a_step_by_hand_is_that_of_autograd_and_ours_is_near(tmp_path):
    problem = steps.problem_of(request_for(tmp_path), 80, torch.float64)
    parameters = problem.parameters.clone().requires_grad_()
    made, noise = problem.kernel(parameters)
    A = dense(made) + noise * torch.eye(80, dtype=torch.float64)
    y = problem.target
    loss = problem.loss(y @ torch.linalg.solve(A, y), torch.logdet(A))
    loss.backward()
    (found_loss, found_gradient), _ = steps._by_hand(problem)
    assert found_loss == pytest.approx(loss.item(), rel=1e-6)
    torch.testing.assert_close(found_gradient, parameters.grad, rtol=1e-4, atol=1e-6)
    ours_loss, ours_gradient = steps._ours(problem, 0, None)
    assert ours_loss == pytest.approx(loss.item(), abs=1e-3)
    torch.testing.assert_close(ours_gradient, found_gradient, rtol=5e-2, atol=5e-3)


def test_parts_write_tables_and_are_not_run_twice(tmp_path, capsys):
    wanted = [name for name in gpu.PARTS if name not in MEASURED_ELSEWHERE]
    options = ["--smoke", "--device", "cpu", "--parts", ",".join(wanted), "--output", str(tmp_path)]
    found = gpu.main(parse(gpu.Config, options))
    assert list(found) == wanted
    for name, result in found.items():
        assert result["complete"], result.get("failed")
        assert json.loads((tmp_path / "cpu" / f"{name}.json").read_text()) == json.loads(json.dumps(result))
        header, rows = views.comparison(result)
        assert rows
        assert all(len(row) == len(header) for row in rows)
    capsys.readouterr()
    assert gpu.main(parse(gpu.Config, options)) == json.loads(json.dumps(found))
    assert capsys.readouterr().out.count("there already") == len(wanted)


def test_a_part_that_fails_is_noted_and_tried_again(tmp_path, monkeypatch):
    def fails(request: Request) -> dict:
        raise torch.OutOfMemoryError("no memory\nmuch detail")

    monkeypatch.setitem(gpu.PARTS, "ceilings", fails)
    config = gpu.Config(device="cpu", smoke=True, parts="ceilings", output=tmp_path)
    assert gpu.main(config)["ceilings"]["failed"] == "no memory"
    monkeypatch.setitem(gpu.PARTS, "ceilings", lambda request: {"rows": []})
    assert gpu.main(config)["ceilings"]["complete"]


def test_a_part_is_not_begun_when_the_time_is_up(tmp_path):
    assert gpu.main(gpu.Config(device="cpu", smoke=True, minutes=1e-9, output=tmp_path)) == {}


def test_tf32_is_off_inside_and_as_it_was_outside():
    before = torch.backends.cudnn.allow_tf32
    with machine.full_float32():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_timing_counts_measured_runs_alone():
    calls = []
    timing = clock.timed(lambda: calls.append(1), CPU, num_runs=4, num_warm_up=2)
    assert len(calls) == 6
    assert timing.num_runs == 4
    assert 0 <= timing.least <= timing.median


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parts", "magic", "--device", "cpu"], "`--parts` must name some of"),
        (["--minutes", "0", "--device", "cpu"], "`--minutes` must be positive"),
        pytest.param(
            ["--device", "cuda"],
            "torch sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_bad_options_say_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        parse(gpu.Config, options)
