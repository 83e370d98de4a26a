"""NumPy arrays, lists and other number types at the public functions: what they become, and what comes back."""

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
import torch

Driver = TypeVar("Driver", bound=Callable[..., Any])

_DATA = ("A", "rhs", "B")
_AS_FLOAT32 = (torch.float16, torch.bfloat16)


def is_array(data: object) -> bool:
    """Whether these are numbers as NumPy users hold them: an array, or a list of numbers or of lists."""
    return isinstance(data, np.ndarray | list)


def as_floating_tensor(name: str, data: Any) -> torch.Tensor:
    """A tensor, array or list of numbers as a tensor of float32 or float64.

    Half precision becomes float32; integers, booleans and lists become float64. Memory is shared where the type stays.

    Args:
        name: Of the argument, for the messages.
        data: The numbers.

    Raises:
        TypeError: Complex numbers, or no numbers at all.
        ValueError: A masked array, whose mask would be lost, or a list whose rows differ in length.
    """
    if isinstance(data, np.ma.MaskedArray):
        raise ValueError(f"`{name}` must not be masked. Got a masked array; fill it first, with .filled(value).")
    if is_array(data):
        data = _tensor_of(name, data)
    if data.is_complex():
        raise TypeError(f"`{name}` must be real. Got {data.dtype}; solve for real and imaginary parts instead.")
    if data.dtype in _AS_FLOAT32:
        return data.to(torch.float32)
    return data if data.is_floating_point() else data.to(torch.float64)


def _tensor_of(name: str, data: Any) -> torch.Tensor:
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"`{name}` must have rows of one length. Got {error}.") from None
    if array.dtype.kind not in "biufc":
        raise TypeError(f"`{name}` must hold numbers. Got an array of {array.dtype}.")
    if array.dtype.kind == "u" or (array.dtype.kind == "f" and array.dtype.itemsize > 8):
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    # torch takes neither negative strides nor read-only memory; only those are copied.
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def numpy_in_numpy_out(driver: Driver) -> Driver:
    """Let a public function take NumPy arrays and lists, and answer in NumPy arrays where it was asked in them.

    The right-hand side decides, and A where there is none. Arrays of two precisions meet in the wider one, as in NumPy;
    lists and integers take the precision of what they meet.
    """
    signature = inspect.signature(driver)
    names = tuple(name for name in _DATA if name in signature.parameters)

    @functools.wraps(driver)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs).arguments
        arrays = {name: arguments[name] for name in names if is_array(arguments.get(name))}
        if not arrays:
            return driver(*args, **kwargs)
        result = driver(**{**arguments, **_in_one_precision(arguments, arrays)})
        return as_numpy(result) if names[-1] in arrays else result

    return wrapper  # type: ignore[return-value]


def _in_one_precision(arguments: dict[str, Any], arrays: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The arrays as tensors of one type: the widest of those that came with one."""
    tensors = {name: as_floating_tensor(name, data) for name, data in arrays.items()}
    decides = {name for name, data in arrays.items() if isinstance(data, np.ndarray) and data.dtype.kind == "f"}
    widest = max((tensors[name].dtype for name in decides), key=lambda dtype: dtype.itemsize, default=None)
    others = [getattr(arguments.get(name), "dtype", None) for name in _DATA if name not in arrays]
    known = [_torch_dtype(dtype) for dtype in others if dtype is not None]
    for name, tensor in tensors.items():
        # What is not an array keeps its type, and an array of another precision than it is refused by the driver.
        dtype = widest if name in decides or not known else known[0]
        tensors[name] = tensor if dtype is None else tensor.to(dtype)
    return tensors


def _torch_dtype(dtype: Any) -> torch.dtype | None:
    if isinstance(dtype, torch.dtype):
        return dtype
    return {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}.get(np.dtype(dtype))


def as_numpy(result: Any) -> Any:
    """A result with NumPy arrays in place of its tensors, also within its parts."""
    if isinstance(result, torch.Tensor):
        return result.detach().cpu().numpy()
    if not is_dataclass(result) or isinstance(result, type):
        return result
    converted = copy.copy(result)
    for field in fields(result):
        object.__setattr__(converted, field.name, as_numpy(getattr(result, field.name)))
    return converted
