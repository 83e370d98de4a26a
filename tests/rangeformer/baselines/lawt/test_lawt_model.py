"""The models: naive twins of attention and layers, padding, causality, loops, halting, rivals.

Decoding with a cache.
"""

import dataclasses

import pytest
import torch
from helpers import seeded
from torch import nn

from rangeformer.baselines.lawt import LawtConfig, LawtRecurrent, LawtTransformer, beam, greedy
from rangeformer.baselines.lawt.decoding import log_probability
from rangeformer.baselines.lawt.layers import Attention, EncoderLayer
from rangeformer.baselines.lawt.loops import Loops
from rangeformer.baselines.lawt.symbols import BOUNDARY, PADDING
from rangeformer.models.checkpoint import load, save

SMALL = LawtConfig(
    input_encoding="P10",
    output_encoding="P10",
    encoder_layers=2,
    encoder_width=16,
    decoder_width=8,
    encoder_heads=2,
    decoder_heads=2,
    num_positions=40,
)
VARIANTS = {
    "plain": {},
    "query is input": {"cross_query": "input"},
    "deep decoder": {"decoder_layers": 3, "encoder_layers": 1},
    "sinusoids": {"positions": "sinusoids"},
    "looped": {"encoder_loops": 3},
    "gated": {"encoder_loops": 3, "loop": "gated"},
    "halting": {"encoder_loops": 3, "loop": "halting"},
    "looped decoder": {"decoder_loops": 2},
    "lstm": {"kind": "lstm", "decoder_width": 16, "decoder_layers": 2},
    "gru": {"kind": "gru", "decoder_width": 16},
}
VARIED = pytest.mark.parametrize("variant", VARIANTS)


def build(variant: str = "plain", seed: int = 0) -> LawtTransformer | LawtRecurrent:
    config = dataclasses.replace(SMALL, **VARIANTS[variant])
    kind = LawtTransformer if config.kind == "transformer" else LawtRecurrent
    return kind(config, generator=seeded(seed)).eval()


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, SMALL.vocabulary.size, shape, generator=seeded(seed))


def test_attention_against_its_definition():
    attention = Attention(8, 2, 6)
    x, source = torch.randn(3, 4, 8, generator=seeded()), torch.randn(3, 5, 6, generator=seeded(1))
    visible = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 0, 1]]).bool()
    heads = []
    for h in range(2):
        own = slice(4 * h, 4 * h + 4)
        q, k, v = (
            f(y)[..., own] for f, y in ((attention.queries, x), (attention.keys, source), (attention.values, source))
        )
        weights = (q @ k.mT / 2).masked_fill(~visible[:, None, :], -torch.inf).softmax(-1)
        heads.append(weights @ v)
    expected = attention.out(torch.cat(heads, -1))
    found = attention(x, attention.keys_values(source), visible[:, None, None, :])
    torch.testing.assert_close(found, expected)


def test_encoder_layer_is_torch_s_post_norm_layer():
    ours = EncoderLayer(8, 2)
    theirs = nn.TransformerEncoderLayer(8, 2, 32, dropout=0.0, batch_first=True, layer_norm_eps=1e-12)
    names = ("queries", "keys", "values")
    with torch.no_grad():
        attention = theirs.self_attn
        attention.in_proj_weight.copy_(torch.cat([getattr(ours.attention, name).weight for name in names]))
        attention.in_proj_bias.copy_(torch.cat([getattr(ours.attention, name).bias for name in names]))
        pairs = [(attention.out_proj, ours.attention.out), (theirs.linear1, ours.mlp[0]), (theirs.linear2, ours.mlp[2])]
        for target, source in pairs:
            target.weight.copy_(source.weight)
            target.bias.copy_(source.bias)
    x = torch.randn(2, 5, 8, generator=seeded())
    torch.testing.assert_close(ours(x, None), theirs(x))


@VARIED
def test_forward(variant):
    model = build(variant)
    logits, passes = model(tokens(3, 12), tokens(3, 7, seed=1))
    assert logits.shape == (3, 7, SMALL.vocabulary.size)
    assert 1 <= passes <= model.config.encoder_loops
    assert torch.isfinite(logits).all()


@VARIED
def test_gradients_reach_every_parameter(variant):
    model = build(variant).train()
    logits, passes = model(tokens(3, 12), tokens(3, 7, seed=1))
    (logits.square().mean() + passes).backward()
    # a key's bias moves all weights of a row alike, so its gradient is rounding
    unused = [
        name
        for name, p in model.named_parameters()
        if (p.grad is None or not p.grad.abs().sum() > 0) and not name.endswith("keys.bias")
    ]
    assert unused == []


@VARIED
def test_the_future_is_not_seen(variant):
    model, source, written = build(variant), tokens(2, 9), tokens(2, 7, seed=1)
    changed = written.clone()
    changed[:, 4:] = tokens(2, 3, seed=2)
    before, after = model(source, written)[0], model(source, changed)[0]
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@VARIED
def test_padding_changes_nothing_and_batch_is_loop(variant):
    model, written = build(variant), tokens(2, 6, seed=1)
    short, long = tokens(1, 8), tokens(1, 12, seed=3)
    padded = torch.cat([nn.functional.pad(short, (0, 4), value=PADDING), long])
    together = model(padded, written)[0]
    torch.testing.assert_close(together[:1], model(short, written[:1])[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[1:], model(long, written[1:])[0], rtol=1e-4, atol=1e-5)


@VARIED
def test_steps_with_a_cache_are_the_whole_sequence_at_once(variant):
    model, source, written = build(variant), tokens(3, 9), tokens(3, 6, seed=1)
    source[0, 5:] = PADDING
    at_once = model(source, written)[0]
    cache = model.start(source)
    one_by_one = torch.stack([model.step(cache, written[:, t]) for t in range(6)], 1)
    torch.testing.assert_close(one_by_one, at_once, rtol=1e-4, atol=1e-5)


@VARIED
def test_rows_of_a_cache_are_selected(variant):
    model, source, written = build(variant), tokens(3, 9), tokens(3, 5, seed=1)
    source[0, 5:] = PADDING
    rows = torch.tensor([2, 0, 0])
    cache = model.start(source)
    for t in range(4):
        model.step(cache, written[:, t])
    cache.select(rows)
    found = model.step(cache, written[rows, 4])
    expected = model(source[rows], written[rows])[0][:, -1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@VARIED
def test_greedy_is_the_likeliest_token_by_token(variant):
    model, source = build(variant), tokens(3, 9)
    answers = greedy(model, source, 8)
    expected = torch.full((3, 1), BOUNDARY)
    for _ in range(7):
        expected = torch.cat([expected, model(source, expected)[0][:, -1:].argmax(-1)], 1)
    assert torch.equal(answers, expected[:, : answers.shape[1]]) or (answers == PADDING).any()
    assert torch.equal(beam(model, source, 8, num_beams=1), answers)


def test_what_has_ended_is_padded():
    model = build()
    with torch.no_grad():  # nothing but the boundary is likely
        model.bias[BOUNDARY] = 100.0
    assert greedy(model, tokens(2, 5), 8).tolist() == [[BOUNDARY, BOUNDARY]] * 2
    # an answer that ends at once beats nothing in log-probability alone
    assert beam(model, tokens(2, 5), 8, num_beams=3, length_penalty=0.0).tolist() == [[BOUNDARY, BOUNDARY]] * 2


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_the_likeliest_answer(seed):
    """Against every answer of three tokens."""
    model = build(seed=seed)
    with torch.no_grad():
        model.decoder_embedding.tokens.weight.mul_(3)
        model.bias[20:] = -50.0  # twenty tokens, of which 1 is padding
        model.bias[PADDING] = -100.0
    source = tokens(1, 6, seed=seed)
    words = [token for token in range(20) if token != PADDING]
    every = torch.tensor([[BOUNDARY, a, b, c] for a in words[1:] for b in words[1:] for c in words])
    every = torch.cat([every, torch.tensor([[BOUNDARY, a, BOUNDARY, PADDING] for a in words[1:]])])
    every = torch.cat([every, torch.tensor([[BOUNDARY, BOUNDARY, PADDING, PADDING]])])
    value = log_probability(model, source.expand(len(every), -1), every)
    best = every[value.argmax()]
    found = beam(model, source, 4, num_beams=400, length_penalty=0.0)[0]
    found = nn.functional.pad(found, (0, 4 - len(found)), value=PADDING)
    torch.testing.assert_close(log_probability(model, source, found[None]), value.max()[None])
    assert torch.equal(found, best)
    greedy_value = log_probability(model, source, greedy(model, source, 4))
    assert value.max() >= greedy_value - 1e-5


def test_plain_loops_are_a_deep_encoder_of_equal_layers():
    looped = build("looped")
    assert isinstance(looped, LawtTransformer)
    deep = LawtTransformer(dataclasses.replace(SMALL, encoder_layers=6)).eval()
    own = looped.state_dict()
    for key in deep.state_dict():
        parts = key.split(".")
        if parts[0] == "encoder":
            parts[1] = str(int(parts[1]) % 2)
        deep.state_dict()[key].copy_(own[".".join(parts)])
    source, written = tokens(2, 9), tokens(2, 5, seed=1)
    torch.testing.assert_close(looped(source, written)[0], deep(source, written)[0])
    assert sum(p.numel() for p in looped.parameters()) < sum(p.numel() for p in deep.parameters())


def test_gate_keeps_and_takes():
    loops = Loops("gated", 4, 3)
    x, everyone = torch.randn(2, 5, 3, generator=seeded()), torch.ones(2, 5, dtype=torch.bool)
    with torch.no_grad():
        for bias, expected in ((-50.0, x), (50.0, x + 4)):
            loops.gate.weight.zero_()
            loops.gate.bias.fill_(bias)
            torch.testing.assert_close(loops(x, lambda y: y + 1, everyone)[0], expected)


def test_halting_by_hand():
    loops = Loops("halting", 3, 1)
    x, visible = torch.zeros(1, 2, 1), torch.tensor([[True, False]])
    calls = []

    def one_pass(y):
        calls.append(len(calls))
        return y + 1

    with torch.no_grad():
        loops.halt.weight.zero_()
        loops.halt.bias.zero_()  # halts with probability one half
        state, passes = loops(x, one_pass, visible)
        assert state[0, 0].item() == pytest.approx(0.5 * 1 + 0.25 * 2 + 0.25 * 3)
        assert passes.item() == pytest.approx(1.75)
        assert state[0, 1].item() == 0
        assert len(calls) == 3
        loops.halt.bias.fill_(10.0)
        state, passes = loops(x, one_pass, visible)
    assert (state[0, 0].item(), passes.item()) == (1.0, 1.0)
    assert len(calls) == 4  # nobody was left for a second pass


def test_query_of_the_release_is_another_model():
    source, written = tokens(2, 9), tokens(2, 5, seed=1)
    plain, release = build(), build("query is input")
    release.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(source, written)[0], release(source, written)[0])


@VARIED
def test_weights_come_from_the_generator_alone(variant):
    before = torch.random.get_rng_state()
    first, second, other = build(variant, 1), build(variant, 1), build(variant, 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@VARIED
def test_checkpoint(variant, tmp_path):
    model = build(variant)
    save(model, tmp_path / "lawt.safetensors")
    loaded = load(tmp_path / "lawt.safetensors")
    assert loaded.config == model.config
    source, written = tokens(2, 9), tokens(2, 5, seed=1)
    # recurrent layers have another kernel where no gradient is asked for
    torch.testing.assert_close(loaded(source, written)[0], model(source, written)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_encoding": "P100"}, "`input_encoding` must be one of"),
        ({"kind": "rnn"}, "`kind` must be one of"),
        ({"loop": "gated"}, "at least 2 with loop='gated'. Got 1"),
        ({"encoder_heads": 3}, "multiple of `encoder_heads`. Got 16 and 3"),
        ({"decoder_layers": 0}, "`decoder_layers` must be at least 1"),
        ({"positions": "fixed"}, "`positions` must be one of"),
        ({"positions": "sinusoids", "decoder_width": 9, "decoder_heads": 3}, 'must be even with positions="sinusoids"'),
        ({"kind": "gru"}, "must be equal in a recurrent model"),
        ({"kind": "gru", "decoder_width": 16, "encoder_loops": 2}, 'of `kind="transformer"` only'),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_sinusoids_know_distances_only():
    codes = build("sinusoids").encoder_embedding.positions.weight.detach()
    products = codes @ codes.T
    for distance in range(40):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
    torch.testing.assert_close(products[0, 0], torch.tensor(1.0))  # as large as random ones
    assert products[0, 1:].max() < 0.95
    assert build("sinusoids").decoder_embedding.positions.weight.requires_grad


def test_the_wrong_class():
    with pytest.raises(ValueError, match="use LawtRecurrent"):
        LawtTransformer(build("gru").config)
    with pytest.raises(ValueError, match="use LawtTransformer"):
        LawtRecurrent(SMALL)


def test_impossible_decoding():
    with pytest.raises(ValueError, match="at least 2, for both boundaries"):
        greedy(build(), tokens(1, 4), 1)
    with pytest.raises(ValueError, match="`num_beams` must be at least 1"):
        beam(build(), tokens(1, 4), 4, num_beams=0)
