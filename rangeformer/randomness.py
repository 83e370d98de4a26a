"""Where randomness comes from when the caller does not say: never from torch's global generator, but for samples."""

from collections.abc import Sequence

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


def draw_normal(
    shape: Sequence[int], generator: torch.Generator | None, *, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Standard normal numbers, drawn where the generator lives, so that a seed gives the same ones on every device.

    Args:
        shape: Of the tensor.
        generator: Source; None takes torch's global one on the CPU.
        dtype: Floating-point type in which they are drawn.
        device: Where they go afterwards.
    """
    return torch.randn(tuple(shape), generator=generator, dtype=dtype, device=_home(generator)).to(device)


def draw_uniform(
    shape: Sequence[int], generator: torch.Generator | None, *, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Uniform numbers from [0, 1); arguments as in `draw_normal`."""
    return torch.rand(tuple(shape), generator=generator, dtype=dtype, device=_home(generator)).to(device)


def draw_signs(
    shape: Sequence[int], generator: torch.Generator | None, *, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Rademacher numbers, 1 or -1 with equal probability; arguments as in `draw_normal`."""
    bits = torch.randint(0, 2, tuple(shape), generator=generator, device=_home(generator))
    return (2 * bits - 1).to(dtype).to(device)


def draw_order(count: int, generator: torch.Generator | None, *, device: torch.device) -> torch.Tensor:
    """A random permutation of 0, ..., count - 1.

    Args:
        count: How many.
        generator: As in `draw_normal`.
        device: As in `draw_normal`.
    """
    return torch.randperm(count, generator=generator, device=_home(generator)).to(device)


def _home(generator: torch.Generator | None) -> torch.device:
    """Where a generator draws; torch refuses to draw anywhere else."""
    return generator.device if generator is not None else torch.device("cpu")
