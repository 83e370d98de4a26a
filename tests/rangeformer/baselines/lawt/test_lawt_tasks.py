"""The nine tasks against NumPy's words for them, and the drawing of examples."""

import pytest
import torch
from helpers import normal, seeded

from rangeformer.baselines.lawt import TASKS, Source, answer, draw_problems

M, N = 3, 4


def operands(task: str, m: int, n: int, seed: int = 0) -> torch.Tensor:
    A = normal(6, *TASKS[task].input_shape(m, n), seed=seed)
    return A + A.mT if TASKS[task].symmetric else A


@pytest.mark.parametrize("task", TASKS)
def test_shapes(task):
    m, n = (N, N) if TASKS[task].square else (M, N)
    found = answer(task, operands(task, m, n))
    assert tuple(found.shape) == (6, *TASKS[task].output_shape(m, n))
    assert found.dtype == torch.float64


@pytest.mark.parametrize("task", TASKS)
def test_batch_is_loop(task):
    m, n = (N, N) if TASKS[task].square else (M, N)
    A = operands(task, m, n)
    torch.testing.assert_close(answer(task, A), torch.cat([answer(task, A[i : i + 1]) for i in range(6)]))


def test_linear_operations_by_their_definition():
    A, B, v = normal(6, M, N), normal(6, M, N, seed=1), normal(6, M, 1, seed=2)
    side_by_side = torch.cat([A, B], -1)
    assert torch.equal(answer("transposition", A), A.mT)
    assert torch.equal(answer("addition", side_by_side), A + B)
    # the transpose of the first operand: an entry is a product of two columns
    torch.testing.assert_close(answer("matrix_product", side_by_side), torch.einsum("bij,bik->bjk", A, B))
    torch.testing.assert_close(answer("matrix_vector", torch.cat([A, v], -1)), torch.einsum("bij,bik->bjk", A, v))


def test_spectral_operations_by_their_definition():
    S, A = operands("eigenvalues", N, N), normal(6, M, N)
    values = answer("eigenvalues", S).squeeze(-1)
    torch.testing.assert_close(values.flip(-1), torch.linalg.eigvalsh(S))
    pairs = answer("eigenvectors", S)
    torch.testing.assert_close(pairs[:, 0], torch.linalg.eigvalsh(S))  # ascending, as the release leaves them
    Q = pairs[:, 1:]
    torch.testing.assert_close(S @ Q, Q * pairs[:, :1])
    torch.testing.assert_close(Q.mT @ Q, torch.eye(N, dtype=torch.float64).expand(6, N, N))
    torch.testing.assert_close(answer("inversion", S) @ S, torch.eye(N, dtype=torch.float64).expand(6, N, N))
    torch.testing.assert_close(answer("singular_values", A).squeeze(-1), torch.linalg.svdvals(A))
    parts = answer("svd", A)
    s, U, V = parts[:, :1], parts[:, 1 : 1 + M], parts[:, 1 + M :]
    torch.testing.assert_close((U * s) @ V.mT, A)


def test_fixed_signs_depend_on_the_space_alone():
    S, A = operands("eigenvectors", N, N), normal(6, M, N)
    pairs = answer("eigenvectors", S, fixed_signs=True)
    Q = pairs[:, 1:]
    torch.testing.assert_close(S @ Q, Q * pairs[:, :1])
    assert (Q.gather(1, Q.abs().argmax(1, keepdim=True)) > 0).all()
    torch.testing.assert_close(answer("eigenvectors", -S, fixed_signs=True)[:, 1:].flip(-1), Q)
    parts = answer("svd", A, fixed_signs=True)
    torch.testing.assert_close((parts[:, 1 : 1 + M] * parts[:, :1]) @ parts[:, 1 + M :].mT, A)


def test_unknown_task():
    with pytest.raises(ValueError, match="`task` must be one of"):
        answer("division", normal(1, 2, 2))


@pytest.mark.parametrize("task", TASKS)
def test_drawn_examples_have_exact_answers(task):
    columns = None if TASKS[task].square else (2, 4)
    groups = draw_problems(Source(tasks=(task,), rows=(2, 4), columns=columns), 60, seeded())
    assert sum(len(group.input) for group in groups) == 60
    expected = {(m, n) for m in (2, 3, 4) for n in (2, 3, 4) if columns is not None or m == n}
    assert {group.shape for group in groups} == expected
    for group in groups:
        torch.testing.assert_close(group.output, answer(task, group.input))
        assert group.input is group.clean


def test_joint_examples_draw_every_task():
    source = Source(tasks=("transposition", "eigenvalues"), rows=(3, 3))
    counts = {group.task: len(group.input) for group in draw_problems(source, 200, seeded())}
    assert source.joint
    assert min(counts.values()) > 70


def test_noise():
    source = Source(tasks=("addition",), rows=(4, 4), input_noise=0.05)
    [group] = draw_problems(source, 2000, seeded())
    noise = group.input - group.clean
    assert noise.std().item() == pytest.approx(0.05 * 10 / 3**0.5, rel=0.02)
    torch.testing.assert_close(group.output, answer("addition", group.clean))
    [group] = draw_problems(Source(tasks=("eigenvalues",), rows=(4, 4), output_noise=0.1), 2000, seeded())
    error = group.output - answer("eigenvalues", group.clean)
    relative = error.square().mean((1, 2)).sqrt() / group.output.square().mean((1, 2)).sqrt()
    assert relative.mean().item() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_share_of_negative_coefficients(kind, share):
    def drawn(**changes):
        [group] = draw_problems(Source(tasks=("addition",), coefficients=kind, **changes), 2000, seeded())
        return group

    group = drawn(negative_share=share)
    assert (group.input < 0).double().mean().item() == pytest.approx(share, abs=0.01)
    # signs are all that changes
    assert torch.equal(group.input.abs(), drawn().input.abs())
    torch.testing.assert_close(group.output, answer("addition", group.input))
    assert torch.equal(drawn(negative_share=0.5).input, drawn().input)


def test_what_cannot_be_written_is_drawn_anew():
    source = Source(tasks=("inversion",), rows=(3, 3))
    [free], [limited] = (draw_problems(source, 300, seeded(), limits=(1e101, x)) for x in (1e101, 1.0))
    assert free.output.abs().max() > 1
    assert limited.output.abs().max() < 1
    torch.testing.assert_close(limited.output, answer("inversion", limited.input))
    [transposed] = draw_problems(Source(rows=(3, 3)), 300, seeded(), limits=(9.5, 1e101))
    assert torch.equal(transposed.output, transposed.input.mT)
    assert transposed.input.abs().max() < 9.5
    with pytest.raises(RuntimeError, match="No example of transposition"):
        draw_problems(Source(rows=(3, 3)), 10, seeded(), limits=(1e-9, 1e101))


def test_examples_come_from_the_generator_alone():
    before = torch.random.get_rng_state()
    source = Source(tasks=("svd", "addition"), rows=(2, 4), columns=(2, 3), scale=(1, 20), input_noise=0.1)
    first, second = (draw_problems(source, 30, seeded(5)) for _ in range(2))
    assert all(torch.equal(a.input, b.input) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ()}, "`tasks` must hold some of"),
        ({"tasks": ("svd", "svd")}, "each once"),
        ({"laws": ("positive",)}, "`laws` must hold some of"),
        ({"coefficients": "normal"}, "`coefficients` must be one of .'uniform', 'gaussian'.. Got 'normal'"),
        ({"rows": (3, 2)}, "`rows` must be 1 <= least"),
        ({"columns": (0, 2)}, "`columns` must be 1 <= least"),
        ({"tasks": ("inversion",), "columns": (3, 3)}, "must be None with tasks of square matrices"),
        ({"scale": (0, 2)}, "`scale` must be"),
        ({"negative_share": 1.5}, r"`negative_share` must be within \[0, 1\]. Got 1.5"),
        ({"tasks": ("svd", "eigenvalues"), "negative_share": 0.1}, "`negative_share` must be 0.5 with tasks of symm"),
        ({"input_noise": -0.1}, "must not be negative"),
    ],
)
def test_bad_sources(changes, message):
    with pytest.raises(ValueError, match=message):
        Source(**changes)


def test_sides_that_have_no_dimension_token():
    with pytest.raises(ValueError, match="too large for addition"):
        Source(tasks=("addition",), rows=(60, 60)).shapes()
