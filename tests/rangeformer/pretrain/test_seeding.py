"""Seeds of batches: reproducible, and unrelated for neighbouring seeds, steps and shards."""

import itertools

import torch

from rangeformer.pretrain.seeding import batch_generator, mixed_seed, splitmix64, weights_generator


def test_splitmix64_against_the_published_sequence():
    """The first outputs of the reference implementation (Vigna, splitmix64.c) seeded with 1234567."""
    state, outputs = 1234567, []
    for _ in range(5):
        outputs.append(splitmix64(state))
        state = (state + 0x9E3779B97F4A7C15) % 2**64
    assert outputs == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_neighbours_have_seeds_of_their_own():
    words = list(itertools.product(range(20), range(40), range(8)))
    assert len({mixed_seed(*w) for w in words}) == len(words)
    # torch uses the lower 32 bits: no more equal pairs there than chance has, 0.005 of them
    assert len({mixed_seed(*w) % 2**32 for w in words}) == len(words)
    assert len({mixed_seed(*w) for w in [(0,), (0, 0), (0, 0, 0), (1,), (0, 1), (1, 0)]}) == 6


def test_every_bit_of_a_seed_moves_half_of_the_bits():
    base = mixed_seed(5, 6, 7)
    for bit in range(64):
        changed = bin(base ^ mixed_seed(5 ^ (1 << bit), 6, 7)).count("1")
        assert 12 < changed < 52


def test_generators():
    first, again = (torch.rand(5, generator=batch_generator(1, 2, 3)) for _ in range(2))
    assert torch.equal(first, again)
    others = [batch_generator(2, 2, 3), batch_generator(1, 3, 3), batch_generator(1, 2, 4), weights_generator(1)]
    assert not any(torch.equal(first, torch.rand(5, generator=g)) for g in others)
