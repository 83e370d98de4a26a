"""RangeFormer: what it is untrained, what it must not depend on, and that nothing odd breaks it."""

import copy

import numpy as np
import pytest
import torch
from pivoted_examples import pivot_columns

from rangeformer.models.attention import ATTENTIONS
from rangeformer.models.checkpoint import load
from rangeformer.models.features import RangeFormer, RangeFormerConfig


def scrambled(config: RangeFormerConfig | None = None) -> RangeFormer:
    """A model none of whose zero-initialised layers is zero: stands for any trained model."""
    model = RangeFormer.untrained(config)
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


MODELS = {"untrained": RangeFormer.untrained, "scrambled": scrambled, "shipped": load}


@pytest.fixture(params=sorted(MODELS))
def model(request):
    return MODELS[request.param]()


def distances(embedding: torch.Tensor) -> torch.Tensor:
    return torch.cdist(embedding.double(), embedding.double(), compute_mode="donot_use_mm_for_euclid_dist")


def untrained_naive(factor: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """The classical algorithm of the model's docstring, one matrix, in plain numpy."""
    n, c = factor.shape
    total = residual + (factor**2).sum(1)
    landmarks = np.argsort(residual / total, kind="stable")[:c]
    kappa = factor @ factor[landmarks].T / np.sqrt(np.outer(total, total[landmarks]))
    table = -np.log(np.abs(kappa) + 1e-6)
    table = table - table.mean(1, keepdims=True)
    table = table - table.mean(0)

    def principal(x: np.ndarray, keep: int) -> np.ndarray:
        u, s, _ = np.linalg.svd(x, full_matrices=False)
        s = np.where(s > 1e-7 * s[0], s, 0)
        coordinates = (u * np.sqrt(s))[:, :keep]
        return coordinates / np.sqrt((coordinates**2).sum(1).mean())

    spectral = principal(factor, 16)
    spectral = spectral / np.sqrt((spectral**2).sum(1, keepdims=True) + 1e-6)
    weight = (1 - residual.sum() / total.sum()) / 2
    return np.hstack([principal(table, 32), weight * spectral, 0.5 * np.sqrt(residual / total)[:, None]])


@pytest.mark.parametrize("c", [3, 24, 48])
def test_untrained_is_the_documented_classical_algorithm(c):
    factor, residual, diagonal = pivot_columns(120, c)
    features = RangeFormer.untrained()(factor, residual, diagonal)
    expected = untrained_naive(factor[0].numpy(), residual[0].numpy())
    assert features.neighbors.shape == (1, 120, min(c, 32) + min(c, 16) + 1)
    assert features.neighbors.shape[1:] == expected.shape
    torch.testing.assert_close(
        distances(features.neighbors[0]), distances(torch.from_numpy(expected)), atol=2e-3, rtol=2e-3
    )


def test_untrained_range_features_match_the_diagonal_in_expectation():
    factor, residual, diagonal = pivot_columns(80, 10)
    config = RangeFormerConfig(num_waves=20_000)
    features = RangeFormer.untrained(config)(factor, residual, diagonal).range
    torch.testing.assert_close(features.square().sum(-1), diagonal / diagonal.mean(), rtol=0.05, atol=0.01)
    span, _ = torch.linalg.qr(features[..., :10])
    outside = factor - span @ (span.mT @ factor)
    assert torch.linalg.vector_norm(outside) < 1e-4 * torch.linalg.vector_norm(factor)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rows_permuted_are_features_permuted(model, seed):
    factor, residual, diagonal = pivot_columns(70, 12, seed=seed)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(seed))
    expected = model(factor, residual, diagonal)
    got = model(factor[:, order], residual[:, order], diagonal[:, order])
    torch.testing.assert_close(got.neighbors, expected.neighbors[:, order], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(got.range, expected.range[:, order], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("change", ["order", "signs", "scale"])
def test_columns_and_scale_do_not_matter(model, change):
    factor, residual, diagonal = pivot_columns(70, 12)
    expected = model(factor, residual, diagonal)
    generator = torch.Generator().manual_seed(1)
    if change == "order":
        factor = factor[:, :, torch.randperm(12, generator=generator)]
    elif change == "signs":
        factor = factor * (2 * torch.randint(0, 2, (12,), generator=generator) - 1)
    else:
        factor, residual, diagonal = factor * 1e3, residual * 1e6, diagonal * 1e6
    got = model(factor, residual, diagonal)
    torch.testing.assert_close(got.neighbors, expected.neighbors, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(got.range, expected.range, atol=2e-3, rtol=1e-3)


def test_batch_is_a_loop_over_the_batch(model):
    inputs = pivot_columns(50, 9, batch=3)
    together = model(*inputs)
    for i in range(3):
        alone = model(*(x[i : i + 1] for x in inputs))
        # The order of float32 sums depends on the batch and the threads; scrambled weights amplify it as above.
        torch.testing.assert_close(together.neighbors[i : i + 1], alone.neighbors, atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(together.range[i : i + 1], alone.range, atol=2e-3, rtol=1e-3)


def test_deterministic_bit_for_bit(model):
    inputs = pivot_columns(50, 9)
    first, second = model(*inputs), copy.deepcopy(model)(*inputs)
    assert torch.equal(first.neighbors, second.neighbors)
    assert torch.equal(first.range, second.range)


def test_generator_changes_the_waves_alone(model):
    inputs = pivot_columns(50, 9)
    first, second = model(*inputs), model(*inputs, generator=torch.Generator().manual_seed(9))
    assert torch.equal(first.neighbors, second.neighbors)
    assert torch.equal(first.range[..., :9], second.range[..., :9])
    assert not torch.equal(first.range[..., 9:], second.range[..., 9:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_in_is_dtype_out(model, dtype):
    features = model(*pivot_columns(40, 6, dtype=dtype))
    assert features.neighbors.dtype == features.range.dtype == dtype


def test_float32_columns_propose_the_same(model):
    inputs = pivot_columns(60, 10)
    double, single = model(*inputs), model(*(x.float() for x in inputs))
    difference = distances(double.neighbors[0]) - distances(single.neighbors[0])
    assert difference.abs().max() < 0.02


@pytest.mark.parametrize(("n", "c"), [(17, 4), (17, 17), (700, 64)])
def test_one_checkpoint_serves_every_size(model, n, c):
    features = model(*pivot_columns(n, c))
    assert features.neighbors.shape[:2] == features.range.shape[:2] == (1, n)
    assert torch.isfinite(features.neighbors).all()
    assert torch.isfinite(features.range).all()


DEGENERATE = {
    "zero rows": lambda f, d, k: (f * (torch.arange(f.shape[1]) % 3 > 0)[:, None], d * 0, k * 0),
    "all zero": lambda f, d, k: (f * 0, d * 0, k * 0),
    "rank deficient": lambda f, d, k: (f[..., :1].expand_as(f).clone(), d, k),
    "zero columns": lambda f, d, k: (f * (torch.arange(f.shape[2]) < 2), d, k),
    "equal rows": lambda f, d, k: (f[:, :1].expand_as(f).clone(), d * 0 + 1, k * 0 + 1),
    "nothing left": lambda f, d, k: (f, d * 0, k),
    "tiny": lambda f, d, k: (f * 1e-15, d * 1e-30, k * 1e-30),
    "huge": lambda f, d, k: (f * 1e12, d * 1e24, k * 1e24),
    "one column": lambda f, d, k: (f[..., :1], d, k),
    "one row": lambda f, d, k: (f[:, :1], d[:, :1], k[:, :1]),
    "one row, one column": lambda f, d, k: (f[:, :1, :1], d[:, :1], k[:, :1]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", sorted(DEGENERATE))
def test_degenerate_input_stays_finite(model, case, dtype):
    inputs = DEGENERATE[case](*pivot_columns(30, 8, dtype=dtype))
    features = model(*inputs)
    assert torch.isfinite(features.neighbors).all()
    assert torch.isfinite(features.range).all()


def test_loops_beyond_the_trained_number_stay_bounded(model):
    inputs = pivot_columns(60, 10)
    usual = model(*inputs).neighbors
    for num_loops in (0, 1, 4 * model.config.num_loops, 40):
        looped = model(*inputs, num_loops=num_loops).neighbors
        assert torch.isfinite(looped).all()
        assert looped.square().mean() < 10 * usual.square().mean()


def test_loops_do_something():
    inputs = pivot_columns(60, 10)
    model = scrambled()
    assert not torch.equal(model(*inputs, num_loops=1).neighbors, model(*inputs, num_loops=2).neighbors)


@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_every_parameter_learns(attention):
    """After one step away from the start, every parameter has a gradient; before it, the outputs of the networks do."""
    model = RangeFormer(RangeFormerConfig(attention=attention)).requires_grad_(True)
    inputs = pivot_columns(60, 20)

    def gradients() -> dict[str, bool]:
        model.zero_grad()
        features = model(*inputs)
        weight = torch.linspace(0, 1, features.neighbors.shape[-1], dtype=torch.float64)
        (features.neighbors.pow(3) @ weight).sum().add(features.range.pow(4).sum()).backward()
        return {k: p.grad is not None and bool(p.grad.any()) for k, p in model.named_parameters()}

    first = gradients()
    assert first["slot_gains"]
    assert first["neighbor_correction.weight"]
    assert first["knobs.2.weight"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    silent = {k for k, v in gradients().items() if not v}
    assert not silent


def test_clear_errors():
    factor, residual, diagonal = pivot_columns(20, 4)
    model = RangeFormer.untrained()
    with pytest.raises(ValueError, match=r"`factor` must have shape \(b, n, c\)"):
        model(factor[0], residual, diagonal)
    with pytest.raises(ValueError, match=r"Got \(1, 20, 4\), \(1, 19\)"):
        model(factor, residual[:, 1:], diagonal)
    with pytest.raises(ValueError, match="`num_loops` must not be negative"):
        model(factor, residual, diagonal, num_loops=-1)
    with pytest.raises(ValueError, match="`attention` must be one of"):
        RangeFormer(RangeFormerConfig(attention="none"))
    with pytest.raises(ValueError, match="multiple of `num_heads`"):
        RangeFormer(RangeFormerConfig(channels=10, num_heads=4))
    with pytest.raises(ValueError, match="`num_waves`"):
        RangeFormer(RangeFormerConfig(num_waves=3))
