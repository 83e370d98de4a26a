"""Command-line options from a dataclass, so that a script states each option, its default and its meaning once."""

import argparse
from collections.abc import Sequence
from dataclasses import field, fields
from typing import Any, TypeVar, get_args

Config = TypeVar("Config")


def option(default: Any, help: str, choices: Sequence[str] | None = None) -> Any:
    """A dataclass field that `parse` turns into an option."""
    return field(default=default, metadata={"help": help, "choices": choices})


def whole_numbers(name: str, text: str) -> list[int]:
    """What an option of several numbers with commas between them holds.

    Raises:
        ValueError: If it is anything else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"`--{name}` must be numbers with commas between them. Got {text!r}.") from error


def parse(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """Read a `config_class` from the command line: `bool` fields are flags, `X | None` fields are of type `X`."""
    parser = argparse.ArgumentParser(
        description=config_class.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for item in fields(config_class):  # pyright: ignore[reportArgumentType]
        name, metadata = "--" + item.name.replace("_", "-"), item.metadata
        if item.type is bool:
            parser.add_argument(name, action="store_true", help=metadata["help"])
        else:
            kind = (get_args(item.type) or (item.type,))[0]
            parser.add_argument(
                name, type=kind, default=item.default, help=metadata["help"], choices=metadata["choices"]
            )
    return config_class(**vars(parser.parse_args(argv)))
