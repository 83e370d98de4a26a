"""What the options of a block decide: streams of random numbers and the model that is loaded."""

import torch

from gp_integration.options import BlockOptions, load_model

CPU = torch.device("cpu")


def test_a_seed_gives_the_same_streams_in_every_call_and_different_ones_side_by_side():
    options = BlockOptions(seed=3)
    draws = [torch.rand(4, generator=options.generator(CPU, stream)) for stream in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[2], torch.rand(4, generator=BlockOptions(seed=4).generator(CPU)))


def test_without_a_seed_the_global_generator_decides():
    options = BlockOptions(seed=None)
    draws = []
    for _ in range(2):
        torch.manual_seed(0)
        draws.append([torch.rand(2, generator=options.generator(CPU)) for _ in range(2)])
    assert torch.equal(draws[0][0], draws[1][0])
    assert not torch.equal(draws[0][0], draws[0][1])


def test_a_model_is_read_once():
    assert load_model(None) is load_model(None)
    assert load_model("untrained") is not load_model(None)
