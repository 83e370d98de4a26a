"""The four encodings of numbers as tokens: three significant digits, m 10^b with 100 <= |m| <= 999.

    name    tokens  pi = 3.14159...   zero      own tokens
    P10          5  + 3 1 4 E-2       + 0 E0    digits 0..9, exponents E-100..E100
    P1000        3  + 314 E-2         + 0 E0    mantissas 0..999, exponents
    B1999        2  314 E-2           0 E0      mantissas -1000..1000, exponents
    FP15         1  FP314/-2          FP0/-9    900 mantissas x 2 signs x 16 exponents, -99..99 / -9, two overflows

Decoding is strict: what `tokens` never writes is malformed (a leading zero, a zero with another sign or exponent),
since such a sequence says that the model has not learnt to write numbers.

References:
    Charton, Linear algebra with transformers, TMLR 2022, arXiv:2112.01898, section 3.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from rangeformer.baselines.lawt.digits import significant, with_exponent
from rangeformer.baselines.lawt.symbols import MINUS, NUM_SYMBOLS, PLUS
from rangeformer.shapes import Float, Int, Tensor

ABSENT = -1
"""Where a number has fewer tokens than the encoding's most."""


@dataclass(frozen=True)
class Encoding(ABC):
    """How numbers are written.

    Attributes:
        name: What configurations call it.
        width: Most tokens of a number.
        num_tokens: Size of the vocabulary of its own.
        limit: Samples with a number as large as this are drawn anew.
        first: Number of its first own token in the vocabulary it is part of.
    """

    name: ClassVar[str]
    width: ClassVar[int]
    num_tokens: ClassVar[int]
    limit: ClassVar[float] = 1e101

    first: int = NUM_SYMBOLS

    @abstractmethod
    def tokens(self, values: Float[Tensor, "*s"]) -> Int[Tensor, "*s width"]:
        """Write numbers; tokens that are not there (of a zero in P10) are `ABSENT` and at the end.

        Raises:
            ValueError: If a number is not finite, or larger than the encoding can write.
        """

    @abstractmethod
    def numbers(self, window: Int[Tensor, "b width"]) -> tuple[Float[Tensor, " b"], Int[Tensor, " b"]]:
        """Read the number at the start of each window: values, and how many tokens each took; 0 if malformed."""

    @abstractmethod
    def names(self) -> list[str]:
        """What its own tokens are called."""

    def round_trip(self, values: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """The values as they come back, float64."""
        window = self.tokens(values.flatten())
        return self.numbers(window)[0].view(values.shape)


_MAX_EXPONENT = 100
_NUM_EXPONENTS = 2 * _MAX_EXPONENT + 1


class _Scientific(Encoding):
    """Mantissa and exponent apart: exponents from E-100, below which a number is zero, to E100."""

    num_mantissas: ClassVar[int]

    def _parts(self, values: Tensor) -> tuple[Int[Tensor, "*s"], Int[Tensor, "*s"]]:
        """Mantissas, and the tokens of the exponents."""
        mantissa, exponent = significant(values)
        if (exponent > _MAX_EXPONENT).any():
            largest = float(values.abs().max())
            raise ValueError(
                f"`values` must be below 9.995e102 to be written in {self.name}. Got {largest:.3g}; scale."
            )
        is_zero = exponent < -_MAX_EXPONENT
        mantissa, exponent = mantissa.masked_fill(is_zero, 0), exponent.masked_fill(is_zero, 0)
        return mantissa, self.first + self.num_mantissas + _MAX_EXPONENT + exponent

    def _exponent(self, token: Int[Tensor, " b"]) -> tuple[Int[Tensor, " b"], Tensor]:
        """Exponents, and whether the tokens are such."""
        exponent = token - (self.first + self.num_mantissas + _MAX_EXPONENT)
        return exponent, exponent.abs() <= _MAX_EXPONENT

    def _exponent_names(self) -> list[str]:
        return [f"E{power}" for power in range(-_MAX_EXPONENT, _MAX_EXPONENT + 1)]


class P10(_Scientific):
    """Sign, three digits, exponent; a zero has one digit."""

    name, width, num_mantissas, num_tokens = "P10", 5, 10, 10 + _NUM_EXPONENTS

    def tokens(self, values: Tensor) -> Tensor:
        mantissa, exponent = self._parts(values)
        size, sign = mantissa.abs(), _sign(mantissa)
        digits = [self.first + (size // power) % 10 for power in (100, 10, 1)]
        absent = torch.full_like(size, ABSENT)
        zero = torch.stack([sign, digits[0], exponent, absent, absent], -1)
        return torch.where((mantissa == 0).unsqueeze(-1), zero, torch.stack([sign, *digits, exponent], -1))

    def numbers(self, window: Tensor) -> tuple[Tensor, Tensor]:
        sign, digits = window[:, 0], window[:, 1:4] - self.first
        are_digits = ((digits >= 0) & (digits < 10)).all(-1) & (digits[:, 0] > 0)
        exponent, is_exponent = self._exponent(window[:, 4])
        mantissa = (digits * digits.new_tensor([100, 10, 1])).sum(-1)
        normal = _is_sign(sign) & are_digits & is_exponent
        zero_exponent, _ = self._exponent(window[:, 2])
        zero = (sign == PLUS) & (digits[:, 0] == 0) & (zero_exponent == 0)
        values = _value(normal, torch.where(sign == MINUS, -mantissa, mantissa), exponent)
        return values, torch.where(normal, 5, torch.where(zero, 3, 0))

    def names(self) -> list[str]:
        return [*map(str, range(10)), *self._exponent_names()]


class P1000(_Scientific):
    """Sign, mantissa, exponent."""

    name, width, num_mantissas, num_tokens = "P1000", 3, 1000, 1000 + _NUM_EXPONENTS

    def tokens(self, values: Tensor) -> Tensor:
        mantissa, exponent = self._parts(values)
        return torch.stack([_sign(mantissa), self.first + mantissa.abs(), exponent], -1)

    def numbers(self, window: Tensor) -> tuple[Tensor, Tensor]:
        sign, mantissa = window[:, 0], window[:, 1] - self.first
        exponent, is_exponent = self._exponent(window[:, 2])
        normal = _is_sign(sign) & (mantissa >= 100) & (mantissa < 1000) & is_exponent
        zero = (sign == PLUS) & (mantissa == 0) & (exponent == 0)
        values = _value(normal, torch.where(sign == MINUS, -mantissa, mantissa), exponent)
        return values, torch.where(normal | zero, 3, 0)

    def names(self) -> list[str]:
        return [*map(str, range(1000)), *self._exponent_names()]


class B1999(_Scientific):
    """Signed mantissa, exponent."""

    name, width, num_mantissas, num_tokens = "B1999", 2, 2001, 2001 + _NUM_EXPONENTS

    def tokens(self, values: Tensor) -> Tensor:
        mantissa, exponent = self._parts(values)
        return torch.stack([self.first + 1000 + mantissa, exponent], -1)

    def numbers(self, window: Tensor) -> tuple[Tensor, Tensor]:
        mantissa = window[:, 0] - (self.first + 1000)
        exponent, is_exponent = self._exponent(window[:, 1])
        normal = (mantissa.abs() >= 100) & (mantissa.abs() < 1000) & is_exponent
        zero = (mantissa == 0) & (exponent == 0)
        return _value(normal, mantissa, exponent), torch.where(normal | zero, 2, 0)

    def names(self) -> list[str]:
        return [*map(str, range(-1000, 1001)), *self._exponent_names()]


class FP15(Encoding):
    """One token: three digits from 1e-7 to below 1e9, steps of 1e-9 below, +-1e9 for all that is larger."""

    name, width, num_tokens, limit = "FP15", 1, 29_001, 1e9
    _lowest, _highest, _num_normal = -9, 6, 28_800

    def tokens(self, values: Tensor) -> Tensor:
        mantissa, exponent = significant(values)
        size, negative = mantissa.abs(), (values < 0).long()
        normal = ((exponent - self._lowest) * 2 + negative) * 900 + size - 100
        # below 1e-7 the step is 1e-9; rounding may reach 100 of them, which is a normal number
        steps = (values.double().clamp(-1e-6, 1e-6) * 1e9).round().long()
        small = self._num_normal + 99 + steps.clamp(-99, 99)
        smallest_normal = negative * 900
        small = torch.where(steps.abs() >= 100, smallest_normal, small)
        overflow = self._num_normal + 199 + negative
        token = torch.where(exponent < self._lowest, small, torch.where(exponent > self._highest, overflow, normal))
        token = torch.where(mantissa == 0, self._num_normal + 99, token)
        return (self.first + token).unsqueeze(-1)

    def numbers(self, window: Tensor) -> tuple[Tensor, Tensor]:
        local = window[:, 0] - self.first
        is_normal, is_small = local < self._num_normal, local < self._num_normal + 199
        mantissa, negative = local % 900 + 100, (local // 900) % 2 == 1
        normal = with_exponent(torch.where(negative, -mantissa, mantissa), local // 1800 + self._lowest)
        small = with_exponent(local - (self._num_normal + 99), torch.full_like(local, self._lowest))
        overflow = torch.where(local == self._num_normal + 199, self.limit, -self.limit).double()
        values = torch.where(is_normal, normal, torch.where(is_small, small, overflow))
        known = (local >= 0) & (local < self.num_tokens)
        return values.masked_fill(~known, 0.0), known.long()

    def names(self) -> list[str]:
        normal = [
            f"FP{sign}{mantissa}/{exponent}"
            for exponent in range(self._lowest, self._highest + 1)
            for sign in ("", "-")
            for mantissa in range(100, 1000)
        ]
        small = [f"FP{mantissa}/{self._lowest}" for mantissa in range(-99, 100)]
        return [*normal, *small, "FP overflow", "FP -overflow"]


ENCODINGS: dict[str, type[Encoding]] = {encoding.name: encoding for encoding in (P10, P1000, B1999, FP15)}
"""The encodings by name."""


def _sign(mantissa: Tensor) -> Tensor:
    return torch.where(mantissa < 0, MINUS, PLUS)


def _is_sign(token: Tensor) -> Tensor:
    return (token == PLUS) | (token == MINUS)


def _value(is_normal: Tensor, mantissa: Tensor, exponent: Tensor) -> Float[Tensor, " b"]:
    """Values m 10^b where there is such a number, else 0."""
    return with_exponent(torch.where(is_normal, mantissa, 0), torch.where(is_normal, exponent, 0))
