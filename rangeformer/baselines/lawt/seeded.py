"""Layers that initialise themselves, from a generator of ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded_layers(generator: torch.Generator | None) -> Iterator[None]:
    """In the block torch's global stream is seeded from the generator (default: seed 0); after it, as it was before.

    The layers' own initialisation draws from the global stream and takes no generator.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
