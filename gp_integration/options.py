"""The options of a block, checked when they are given."""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import rangeformer as rf
from rangeformer.validation import check_tolerance

_FALLBACKS = ("cholesky", "raise")
# An odd constant without structure (2^64 over the golden ratio) keeps the streams of nearby seeds apart.
_STREAM = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class BlockOptions:
    """What `use_rangeformer` and `RangeFormerLinearOperator` accept; see there for the meaning."""

    rtol: float = 1e-3
    eval_rtol: float = 1e-4
    num_columns: int | None = None
    num_neighbors: int | None = None
    num_probes: int | None = None
    checkpoint: str | Path | None = None
    seed: int | None = 0
    max_iterations: int = 1000
    min_size: int = 800
    fallback: str = "cholesky"
    reuse_structure: bool = True
    gradient_rtol: float | None = None

    def __post_init__(self):
        for name in ("rtol", "eval_rtol"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 < value < 1 and math.isfinite(value)):
                raise ValueError(f"`{name}` must be a relative residual between 0 and 1. Got {value!r}.")
        if self.gradient_rtol is not None:
            check_tolerance("gradient_rtol", self.gradient_rtol)
        _check_count("num_columns", self.num_columns, minimum=0, optional=True)
        _check_count("num_neighbors", self.num_neighbors, minimum=0, optional=True)
        _check_count("num_probes", self.num_probes, minimum=1, optional=True)
        _check_count("seed", self.seed, minimum=0, optional=True)
        _check_count("max_iterations", self.max_iterations, minimum=1)
        _check_count("min_size", self.min_size, minimum=0)
        if self.fallback not in _FALLBACKS:
            raise ValueError(f"`fallback` must be one of {_FALLBACKS}. Got {self.fallback!r}.")

    def generator(self, device: torch.device, stream: int = 0) -> torch.Generator:
        """A generator in the same state for every call, or a fresh one if `seed` is None.

        The same probes in every call make the training loss deterministic, which line searches (L-BFGS)
        rely on. Preconditioner and probes draw from different streams: estimates are unbiased only if
        the probes do not depend on the preconditioner.
        """
        seed = _fresh_seed() if self.seed is None else self.seed
        return torch.Generator(device=device).manual_seed((seed + stream * _STREAM) % 2**63)

    def preconditioner(self) -> Any:
        """The preconditioner these options describe, as `rangeformer` takes it."""
        return rf.RangeFormerPreconditioner(
            num_columns=self.num_columns, num_neighbors=self.num_neighbors, model=load_model(self.checkpoint)
        )


def load_model(checkpoint: str | Path | None) -> rf.RangeFormer:
    """The model behind a `checkpoint` option, read from disk once for every version of the file.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it is damaged.
    """
    if checkpoint in (None, "untrained"):
        return _load(checkpoint, None)
    path = Path(checkpoint)
    return _load(path, path.stat().st_mtime_ns if path.exists() else None)


@functools.lru_cache(maxsize=8)
def _load(checkpoint: str | Path | None, version: int | None) -> rf.RangeFormer:
    return rf.RangeFormer.untrained() if checkpoint == "untrained" else rf.load(checkpoint)


def _fresh_seed() -> int:
    return int(torch.randint(2**62, ()))


def _check_count(name: str, value: object, *, minimum: int, optional: bool = False) -> None:
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        suffix = " or None" if optional else ""
        raise ValueError(f"`{name}` must be an integer of at least {minimum}{suffix}. Got {value!r}.")
