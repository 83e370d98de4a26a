"""From plain JSON values to frozen dataclasses: lists become tuples, and what does not fit is named before any work."""

import dataclasses
import math
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def from_fields(cls: type[T], fields: Any, where: str) -> T:
    """Build a dataclass from a JSON object.

    Args:
        cls: A dataclass whose fields are bool, int, float, str, None, Literal, tuples or dicts of these, or such
            dataclasses.
        fields: What the file says.
        where: How errors call this object, such as "the settings of task 'features'".

    Raises:
        TypeError: If `fields` is not an object, or a value has the wrong type.
        ValueError: If a field is unknown or missing, or the class refuses a value.

    Example:
        >>> from dataclasses import dataclass
        >>> from rangeformer.pretrain.fields import from_fields
        >>> @dataclass(frozen=True)
        ... class Settings:
        ...     sizes: tuple[int, ...] = (8,)
        >>> from_fields(Settings, {"sizes": [16, 32]}, "the settings")
        Settings(sizes=(16, 32))
    """
    if not isinstance(fields, dict):
        raise TypeError(f"{where} must be an object of fields. Got {fields!r}.")
    declared: dict[str, Any] = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(fields) - set(declared)):
        raise ValueError(f"Unknown fields {unknown} in {where}. Known: {sorted(declared)}.")
    missing = [
        name
        for name, field in declared.items()
        if name not in fields and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"Fields {missing} are missing in {where}.")
    hints = get_type_hints(cls)
    return cls(**{name: _converted(value, hints[name], f"`{name}` in {where}") for name, value in fields.items()})


def _converted(value: Any, hint: Any, name: str) -> Any:
    """The value as its annotation wants it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _one_of(value, arguments, name)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{name} must be one of {list(arguments)}. Got {value!r}.")
        return value
    if origin is tuple:
        return _tuple(value, arguments, name)
    if origin is dict:
        if not isinstance(value, dict):
            raise TypeError(f"{name} must be an object. Got {value!r}.")
        return {key: _converted(x, arguments[1], f"{name}, {key!r},") for key, x in value.items()}
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_fields(hint, value, name)  # type: ignore[arg-type]
    return _plain(value, hint, name)


def _one_of(value: Any, hints: tuple[Any, ...], name: str) -> Any:
    """The value as the first annotation that takes it."""
    if value is None and NoneType in hints:
        return None
    others = [hint for hint in hints if hint is not NoneType]
    for hint in others[:-1]:
        try:
            return _converted(value, hint, name)
        except (TypeError, ValueError):
            continue
    return _converted(value, others[-1], name)


def _tuple(value: Any, hints: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{name} must be a list. Got {value!r}.")
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(value) != len(hints):
        raise ValueError(f"{name} must have {len(hints)} entries. Got {value!r}.")
    return tuple(
        _converted(x, hint, f"entry {i} of {name}") for i, (x, hint) in enumerate(zip(value, hints, strict=True))
    )


def _plain(value: Any, hint: Any, name: str) -> Any:
    # bool is an int to Python, and a whole number is a float to JSON
    accepted = {int: int, float: (int, float), str: str, bool: bool}.get(hint)
    if accepted is None:
        raise TypeError(f"{name} has an annotation that no JSON value fits: {hint!r}.")
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise TypeError(f"{name} must be of type {hint.__name__}. Got {value!r}.")
    if hint is float:
        value = float(value)
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite. Got {value!r}.")
    return value
