"""The paper's model against its definition written out, its symmetries, its limits, and that it learns."""

import math

import pytest
import torch
from helpers import normal, seeded

from rangeformer.baselines import PaperConfig, PaperRangeFormer
from rangeformer.baselines.config import ATTENTION, EMBEDDINGS, OPERATIONS, POSITIONS
from rangeformer.models.checkpoint import load, save

SMALL = {"n_max": 9, "channels": 8, "num_heads": 2, "num_loops": 3, "mlp_factor": 2}
EVERY = [
    pytest.param({"operation": operation, "embedding": embedding}, id=f"{operation}-{embedding}")
    for operation in OPERATIONS
    for embedding in EMBEDDINGS
]
POSITIONED = [
    pytest.param({"position": position, "embedding": embedding}, id=f"{position}-{embedding}")
    for position in POSITIONS
    for embedding in EMBEDDINGS
    if (position, embedding) != ("rope", "entries")
]


def small(**changes) -> PaperRangeFormer:
    model = PaperRangeFormer(PaperConfig(**{**SMALL, **changes}), generator=seeded(1)).double()
    with torch.no_grad():  # biases and norms away from where they start, so that leaving one out shows
        for i, parameter in enumerate(model.parameters()):
            parameter += 0.1 * normal(*parameter.shape, seed=i)
    return model


def problem(n: int = 6, b: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    root = normal(b, n, n, seed=5)
    return root @ root.mT / n + torch.eye(n, dtype=torch.float64), normal(b, n, seed=6)


def answer(model: PaperRangeFormer, matrix: torch.Tensor, rhs: torch.Tensor, **options) -> torch.Tensor:
    return model(matrix, rhs if model.config.operation == "solve" else None, **options)


# ---- the definition, one token and one number at a time -------------------------------------------------------------


def naive_norm(x: list[float], norm: torch.nn.LayerNorm) -> list[float]:
    mean = sum(x) / len(x)
    spread = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + norm.eps)
    return [(v - mean) / spread * g + c for v, g, c in zip(x, norm.weight.tolist(), norm.bias.tolist(), strict=True)]


def naive_linear(x: list[float], linear: torch.nn.Linear) -> list[float]:
    rows = zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)
    return [sum(w * v for w, v in zip(row, x, strict=True)) + bias for row, bias in rows]


def naive_weight(name: str, query: list[float], key: list[float]) -> float:
    score = sum(q * k for q, k in zip(query, key, strict=True)) / math.sqrt(len(key))
    if name == "softmax":
        return math.exp(score)
    if name == "taylor":
        return 1 + score + score**2 / 2
    positive = [[v + 1 if v > 0 else math.exp(v) for v in x] for x in (query, key)]
    return sum(q * k for q, k in zip(*positive, strict=True))


def naive_turn(x: list[float], place: int) -> list[float]:
    turned = []
    for j in range(0, len(x), 2):
        angle = place / 10_000 ** (j / len(x))
        turned += [x[j] * math.cos(angle) - x[j + 1] * math.sin(angle)]
        turned += [x[j] * math.sin(angle) + x[j + 1] * math.cos(angle)]
    return turned


def naive_block(state: list[list[float]], block: torch.nn.Module, config: PaperConfig) -> list[list[float]]:
    D, size = config.channels, config.channels // config.num_heads
    mapped = [naive_linear(naive_norm(x, block.before_attention), block.queries_keys_values) for x in state]
    mixed = [[] for _ in state]
    for head in range(config.num_heads):
        part = slice(head * size, (head + 1) * size)
        queries, keys, values = ([x[k * D : (k + 1) * D][part] for x in mapped] for k in range(3))
        if config.position == "rope":
            queries, keys = ([naive_turn(x, i) for i, x in enumerate(xs)] for xs in (queries, keys))
        for i, query in enumerate(queries):
            weights = [naive_weight(config.attention, query, key) for key in keys]
            mean = [sum(w * v[c] for w, v in zip(weights, values, strict=True)) / sum(weights) for c in range(size)]
            mixed[i] += mean
    state = [
        [a + b for a, b in zip(x, naive_linear(m, block.after_attention), strict=True)]
        for x, m in zip(state, mixed, strict=True)
    ]
    out = []
    for x in state:
        hidden = naive_linear(naive_norm(x, block.before_mlp), block.mlp[0])
        hidden = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in hidden]
        out.append([a + b for a, b in zip(x, naive_linear(hidden, block.mlp[2]), strict=True)])
    return out


def naive_sine(place: int, channels: int) -> list[float]:
    return [(math.sin, math.cos)[c % 2](place / 10_000 ** ((c - c % 2) / channels)) for c in range(channels)]


def naive_code(model: PaperRangeFormer, place: int, which: str = "rows") -> list[float]:
    config = model.config
    if config.position == "learned":
        return getattr(model.tokens, which)[place].tolist()
    if config.position == "sine":
        code = naive_sine(place, config.channels)
        return code if which == "rows" else code[::-1]
    return [0.0] * config.channels


def naive_tokens(model: PaperRangeFormer, matrix: torch.Tensor, rhs: torch.Tensor) -> list[list[float]]:
    config, n = model.config, len(matrix)
    index, solve = config.position == "index", config.operation == "solve"
    tokens = []
    if config.embedding == "entries":
        for i in range(n):
            for j in range(n + solve):
                value, column = (matrix[i, j], j) if j < n else (rhs[i], config.n_max)
                code = zip(naive_code(model, i), naive_code(model, column, "columns"), strict=True)
                embedded = naive_linear([float(value)], model.tokens.project)
                tokens.append([a + r + c for a, (r, c) in zip(embedded, code, strict=True)])
                tokens[-1] += [(i + 1) / config.n_max, (column + 1) / config.n_max] * index
        return tokens
    omega = torch.randn(n, config.channels, generator=seeded(0)).double() / math.sqrt(n)
    for i in range(n):
        row = matrix[i].tolist() + [0.0] * (config.n_max - n)
        if config.embedding == "randomised":
            row = (matrix[i] @ omega).tolist()
        embedded = naive_linear(row, model.tokens.project)
        tokens.append([a + c for a, c in zip(embedded, naive_code(model, i), strict=True)])
        tokens[-1] += [(i + 1) / config.n_max] * index + [float(rhs[i])] * solve
    return tokens


def naive_forward(model: PaperRangeFormer, matrix: torch.Tensor, rhs: torch.Tensor) -> torch.Tensor:
    config, n = model.config, len(matrix)
    tokens = naive_tokens(model, matrix, rhs)
    state = tokens
    for loop in range(config.num_loops):
        state = naive_block(state, model.blocks[0 if config.looped else loop], config)
        if config.input_injection:
            state = [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(state, tokens, strict=True)]
    final = torch.tensor([naive_norm(x, model.norm) for x in state], dtype=torch.float64)
    if config.embedding == "entries":
        final = final.reshape(n, -1, config.width)
        if config.operation == "solve":
            final = final[:, n]
        elif config.operation != "inverse":
            final = sum(final[:, j] for j in range(n)) / n
    numbers = config.answer_scale * (final @ model.read_out.weight.T + model.read_out.bias)
    if config.operation == "inverse":
        table = numbers[:, :, 0] if config.embedding == "entries" else numbers[:, :n]
        return (table + table.T) / 2
    numbers = numbers[:, 0]
    if config.operation in ("logdet", "trace", "largest_eigenvalue"):
        padded = torch.cat([numbers, numbers.new_zeros(config.n_max - n)])
        return padded @ model.pool.weight[0] + config.answer_scale * model.pool.bias[0]
    return numbers.sort().values if config.operation == "eigenvalues" else numbers


@pytest.mark.parametrize("changes", EVERY + POSITIONED)
def test_equals_the_definition_written_out(changes):
    assert_equals_twin(small(**changes), 4)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize(("looped", "injected"), [(True, False), (False, True), (False, False)])
def test_equals_the_definition_written_out_in_every_block(attention, looped, injected):
    assert_equals_twin(small(attention=attention, looped=looped, input_injection=injected, answer_scale=3.0), 4)


def assert_equals_twin(model: PaperRangeFormer, n: int) -> None:
    matrix, rhs = problem(n, b=2)
    expected = torch.stack([naive_forward(model, *one) for one in zip(matrix, rhs, strict=True)])
    torch.testing.assert_close(answer(model, matrix, rhs).detach(), expected.detach())


# ---- invariances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", EVERY)
def test_the_answer_does_not_depend_on_the_padding(changes):
    """What the parameters say about rows that are not there cannot matter: they may even be nan."""
    model = small(**changes)
    matrix, rhs = problem()
    expected = answer(model, matrix, rhs)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "tokens.project.weight" and model.config.embedding == "rows":
                parameter[:, 6:] = torch.nan
            if name == "tokens.rows":
                parameter[6:] = torch.nan
            if name == "tokens.columns":
                parameter[6:-1] = torch.nan
            if name == "pool.weight":
                parameter[:, 6:] = torch.nan
    assert torch.equal(answer(model, matrix, rhs), expected)


@pytest.mark.parametrize("operation", ["solve", "eigenvalues"])
def test_without_a_position_code_the_order_of_the_tokens_does_not_matter(operation):
    """The rows of a matrix exchanged, and its columns left: the model with no position code only moves its answers."""
    model = small(operation=operation, position="none")
    matrix, rhs = problem()
    order = torch.randperm(6, generator=seeded(2))
    moved = answer(model, matrix[:, order], rhs[:, order])
    expected = answer(model, matrix, rhs)
    torch.testing.assert_close(moved, expected if operation == "eigenvalues" else expected[:, order])
    coded = small(operation=operation, position="learned")
    assert not torch.allclose(answer(coded, matrix[:, order], rhs[:, order]).sort().values, answer(coded, matrix, rhs))


@pytest.mark.parametrize("changes", EVERY)
def test_batch_equals_loop_and_runs_are_equal(changes):
    model = small(**changes)
    matrix, rhs = problem()
    together = answer(model, matrix, rhs)
    alone = torch.cat([answer(model, matrix[i : i + 1], rhs[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)
    assert torch.equal(answer(model, matrix, rhs), together)


def test_weights_come_from_the_generator_alone():
    before = torch.random.get_rng_state()
    first, second, other = (PaperRangeFormer(PaperConfig(**SMALL), generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [m.state_dict()["blocks.0.mlp.0.weight"] for m in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_answer_has_the_dtype_of_the_matrix_not_of_the_weights():
    model = PaperRangeFormer(PaperConfig(**SMALL))
    matrix, rhs = problem()
    assert model(matrix, rhs).dtype == torch.float64
    assert model(matrix.float(), rhs.float()).dtype == torch.float32


def test_randomised_form_without_tied_parameters_reads_any_size():
    model = small(embedding="randomised", position="index")
    assert not model.config.tied_to_n_max
    matrix, rhs = problem(30)
    first = model(matrix, rhs, generator=seeded(3))
    assert first.shape == (3, 30)
    assert not torch.allclose(first, model(matrix, rhs, generator=seeded(4)))  # Omega is the generator's


# ---- gradients and learning -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", EVERY + POSITIONED)
def test_all_gradients_are_finite_and_not_zero(changes):
    model = small(**changes)
    n = model.config.n_max  # every padded weight is met
    matrix, rhs = problem(n)
    found = answer(model, matrix, rhs)
    (found * normal(*found.shape, seed=9)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("changes", EVERY)
def test_fifty_steps_lower_the_loss(changes):
    model = PaperRangeFormer(PaperConfig(**{**SMALL, **changes}), generator=seeded(0))
    matrix, rhs = (x.float() for x in problem(5, b=8))
    exact = {
        "solve": torch.linalg.solve(matrix, rhs),
        "eigenvalues": torch.linalg.eigvalsh(matrix),
        "logdet": torch.linalg.slogdet(matrix).logabsdet,
        "largest_eigenvalue": torch.linalg.eigvalsh(matrix)[:, -1],
        "trace": matrix.diagonal(dim1=-2, dim2=-1).sum(-1),
        "inverse": torch.linalg.inv(matrix),
    }[model.config.operation]
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(50):
        loss = (answer(model, matrix, rhs) - exact).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_checkpoint_gives_the_model_back(tmp_path):
    model = PaperRangeFormer(PaperConfig(**{**SMALL, "operation": "logdet", "attention": "elu"}), generator=seeded(3))
    path = tmp_path / "paper.safetensors"
    save(model, path)
    loaded = load(path)
    assert type(loaded) is PaperRangeFormer
    assert loaded.config == model.config
    assert torch.equal(loaded(problem()[0]), model(problem()[0]))


# ---- what must fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
def test_larger_than_n_max_says_that_this_form_is_tied_to_it(operation):
    with pytest.raises(ValueError, match="this form of the model is tied to n_max"):
        answer(small(operation=operation), *problem(10))


@pytest.mark.parametrize(
    ("changes", "matrix", "options", "message"),
    [
        ({}, (3, 6, 5), {"rhs": (3, 6)}, r"`matrix` must have shape \(b, n, n\)"),
        ({}, (6, 6), {"rhs": (3, 6)}, r"`matrix` must have shape \(b, n, n\)"),
        ({}, (3, 6, 6), {}, "`rhs` belongs to operation 'solve'"),
        ({"operation": "trace"}, (3, 6, 6), {"rhs": (3, 6)}, "This model's: 'trace'"),
        ({}, (3, 6, 6), {"rhs": (3, 5)}, r"`rhs` must have shape \(3, 6\)"),
        ({}, (3, 6, 6), {"rhs": (3, 6), "num_loops": 0}, "`num_loops` must be at least 1"),
        ({"looped": False}, (3, 6, 6), {"rhs": (3, 6), "num_loops": 4}, "must be 3, the number of distinct blocks"),
    ],
)
def test_bad_input(changes, matrix, options, message):
    if "rhs" in options:
        options = {**options, "rhs": torch.ones(options["rhs"])}
    forward = getattr(PaperRangeFormer.forward, "__wrapped__", PaperRangeFormer.forward)  # past the shape checker
    with pytest.raises(ValueError, match=message):
        forward(PaperRangeFormer(PaperConfig(**{**SMALL, **changes})), torch.ones(matrix), **options)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e60])
def test_numbers_that_float32_does_not_hold_are_refused(bad):
    model = PaperRangeFormer(PaperConfig(**SMALL))
    matrix, rhs = problem()
    with pytest.raises(ValueError, match="`rhs` must be finite in the weights' precision, torch.float32"):
        model(matrix, rhs * bad)
    matrix[1, 2, 2] = bad
    with pytest.raises(ValueError, match="`matrix` must be finite in the weights' precision"):
        model(matrix, rhs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operation": "svd"}, "`operation` must be one of"),
        ({"attention": "galerkin"}, "`attention` must be one of"),
        ({"embedding": "columns"}, "`embedding` must be one of"),
        ({"position": "sinusoid"}, "`position` must be one of"),
        ({"num_loops": 0}, "`num_loops` must be at least 1"),
        ({"answer_scale": 0.0}, "`answer_scale` must be positive"),
        ({"channels": 10, "num_heads": 4}, "`channels` must be a multiple of `num_heads`"),
        ({"channels": 12, "num_heads": 4, "position": "rope"}, "of twice that for rope"),
        ({"embedding": "entries", "position": "rope"}, "entries have two"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(ValueError, match=message):
        PaperConfig(**changes)
