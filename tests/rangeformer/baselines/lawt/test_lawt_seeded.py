"""Layers that initialise themselves are reproducible and leave torch's global stream as it was."""

import torch

from rangeformer.baselines.lawt.seeded import seeded_layers


def weights(seed: int | None) -> torch.Tensor:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with seeded_layers(generator):
        return torch.nn.Linear(3, 2).weight.detach()


def test_the_generator_decides():
    assert torch.equal(weights(5), weights(5))
    assert torch.equal(weights(None), weights(None))
    assert not torch.equal(weights(5), weights(6))


def test_the_global_stream_is_left_alone():
    state = torch.random.get_rng_state()
    weights(5)
    assert torch.equal(torch.random.get_rng_state(), state)
