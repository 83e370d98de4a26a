"""Numbers as significant digits times powers of ten, exactly as `"%.2e"` writes them, for whole tensors."""

import torch

from rangeformer.shapes import Float, Int, Tensor

_POWERS = torch.tensor([float(f"1e{k}") for k in range(309)], dtype=torch.float64)
_SMALLEST = 1e-250  # taken for zero: no encoding reaches it, and powers of ten below would overflow
_NEAR_TIE = 1e-8  # far above the rounding of the scaled mantissa, far below what matters to the cost


def significant(values: Float[Tensor, "*s"], digits: int = 3) -> tuple[Int[Tensor, "*s"], Int[Tensor, "*s"]]:
    """Mantissas m and exponents b with value ~ m 10^b, 10^(digits-1) <= |m| < 10^digits, rounded half to even.

    The decimal form of the binary number is rounded as Python's `format` does. Numbers too close to a tie for the
    vectorised arithmetic are left to `format` itself.

    Args:
        values: `(*s)`, finite.
        digits: How many.

    Returns:
        Mantissas and exponents `(*s)`, int64; both are 0 for zero and for numbers below 1e-250.

    Raises:
        ValueError: If `values` are not finite, or `digits` is not in 1..7.

    Example:
        >>> import torch
        >>> from rangeformer.baselines.lawt.digits import significant
        >>> [x.tolist() for x in significant(torch.tensor([3.14159, -9.9999]))]
        [[314, -100], [-2, -1]]
    """
    if not 1 <= digits <= 7:
        raise ValueError(f"`digits` must be in 1..7. Got {digits}.")
    if not torch.isfinite(values).all():
        raise ValueError("`values` must be finite: no token stands for NaN or infinity. Got some; leave them out.")
    values = values.double()
    size = values.abs()
    is_zero = size < _SMALLEST
    size = torch.where(is_zero, torch.ones_like(size), size)
    exponent = size.log10().floor().long() - (digits - 1)
    scaled = with_exponent(size, -exponent)
    mantissa = scaled.round().long()
    near_tie = ((scaled - scaled.floor() - 0.5).abs() < _NEAR_TIE) & ~is_zero
    if near_tie.any():
        exact = [f"{x:.{digits - 1}e}".split("e") for x in size[near_tie].tolist()]
        mantissa[near_tie] = mantissa.new_tensor([int(text.replace(".", "")) for text, _ in exact])
        exponent[near_tie] = exponent.new_tensor([int(power) - (digits - 1) for _, power in exact])
    carried = mantissa == 10**digits
    mantissa = torch.where(carried, mantissa // 10, mantissa).masked_fill(is_zero, 0)
    exponent = torch.where(carried, exponent + 1, exponent).masked_fill(is_zero, 0)
    return torch.where(values < 0, -mantissa, mantissa), exponent


def with_exponent(mantissa: Tensor, exponent: Int[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Values m 10^b, float64: correctly rounded for |b| <= 22, where powers of ten are exact.

    Within an ulp or two elsewhere.
    """
    powers = _POWERS.to(mantissa.device)
    m = mantissa.double()
    return torch.where(exponent >= 0, m * powers[exponent.clamp(0, 308)], m / powers[(-exponent).clamp(0, 308)])


def rounded(values: Float[Tensor, "*s"], digits: int = 3) -> Float[Tensor, "*s"]:
    """The values to that many significant digits, float64."""
    return with_exponent(*significant(values, digits))
