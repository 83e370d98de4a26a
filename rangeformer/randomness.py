"""Where randomness comes from when the caller does not say: never from torch's global generator, but for samples."""

import torch

# Streams of different drivers, so that probes never depend on a preconditioner that was built before them.
PRECONDITIONER, PROBES, SKETCH = range(3)


def generator_or_default(generator: torch.Generator | None, stream: int) -> torch.Generator:
    """The caller's generator, else a fixed one: without an argument every call gives the same answer.

    Args:
        generator: What the caller passed.
        stream: Which fixed one.
    """
    return torch.Generator().manual_seed(stream) if generator is None else generator


def fresh_generator() -> torch.Generator:
    """A new stream, seeded from torch's global generator so that `torch.manual_seed` reproduces it."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())))
