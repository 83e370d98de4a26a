"""Random numbers from a `torch.Generator`, on its device; scalars in float64."""

import math

import torch

from rangeformer.shapes import Tensor


def uniform(generator: torch.Generator, low: float | int, high: float | int) -> float:
    """Uniform on [low, high)."""
    u = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    return low + (high - low) * u.item()


def log_uniform(generator: torch.Generator, low: float | int, high: float | int) -> float:
    """Of uniform logarithm, between low > 0 and high."""
    return math.exp(uniform(generator, math.log(low), math.log(high)))


def integer(generator: torch.Generator, low: int, high: int) -> int:
    """Uniform on low..high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator, device=generator.device).item())


def normal(*shape: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Independent standard Gaussian entries."""
    return torch.randn(*shape, generator=generator, device=generator.device, dtype=dtype)


def rand(*shape: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Independent entries, uniform on [0, 1)."""
    return torch.rand(*shape, generator=generator, device=generator.device, dtype=dtype)


def laplace(*shape: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Independent entries of density exp(-|x|) / 2, by inversion."""
    u = rand(*shape, generator=generator, dtype=dtype).clamp(1e-6, 1 - 1e-6) - 0.5
    return -u.sign() * (1 - 2 * u.abs()).log()
