"""What a config file says: a task, its settings, and how to run it."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rangeformer.pretrain.config import RunConfig
from rangeformer.pretrain.fields import from_fields
from rangeformer.pretrain.task import Task
from rangeformer.pretrain.tasks import TASKS

CONFIGS = Path(__file__).parent / "configs"
"""The config files of the shipped weights, by name."""


@dataclass(frozen=True)
class Plan:
    """One run of the training program: everything that its result depends on.

    Attributes:
        name: Under which the task is known.
        task: The task with its settings.
        run: How to train.
    """

    name: str
    task: Task
    run: RunConfig

    @classmethod
    def from_fields(cls, fields: Any, *, tasks: Mapping[str, type[Any]] = TASKS) -> "Plan":
        """Build from `{"task": name, "settings": {...}, "run": {...}}`, of which the last two may be missing.

        Args:
            fields: Plain JSON values.
            tasks: Classes of `Task`, by name. Default: the tasks of this package.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If the task or a field is unknown, or a value is impossible.
        """
        if not isinstance(fields, dict):
            raise TypeError(f"A configuration must be an object with `task`, `settings` and `run`. Got {fields!r}.")
        if unknown := sorted(set(fields) - {"task", "settings", "run"}):
            raise ValueError(f"Unknown fields {unknown} in the configuration. Known: ['run', 'settings', 'task'].")
        name = fields.get("task")
        if not isinstance(name, str) or name not in tasks:
            raise ValueError(f"`task` must be one of {sorted(tasks)}. Got {name!r}.")
        task = from_fields(tasks[name], fields.get("settings", {}), f"the settings of task {name!r}")
        return cls(name, task, from_fields(RunConfig, fields.get("run", {}), "the run's fields"))

    @classmethod
    def from_file(
        cls,
        path_or_name: str | os.PathLike[str],
        changes: dict[str, Any] | None = None,
        *,
        tasks: Mapping[str, type[Any]] = TASKS,
        configs: Path = CONFIGS,
    ) -> "Plan":
        """Read a config file, or a shipped one by its name.

        Args:
            path_or_name: A JSON file, or the name of one in `configs` without its suffix.
            changes: What to replace, by dotted name: `{"settings.sizes": [32], "run.seed": 1}`.
            tasks: Classes of `Task`, by name. Default: the tasks of this package.
            configs: Folder of the files that go by their names. Default: that of this package.

        Raises:
            FileNotFoundError: If there is no such file.
            TypeError: If a value has the wrong type.
            ValueError: If the file is not JSON, or as in `from_fields`.
        """
        path = _find(path_or_name, configs)
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"The configuration {str(path)!r} is not valid JSON ({error}).") from error
        for name, value in (changes or {}).items():
            _replace(fields, name, value)
        return cls.from_fields(fields, tasks=tasks)

    def as_fields(self) -> dict[str, Any]:
        """The plain JSON values from which `from_fields` builds an equal plan; defaults are spelt out."""
        settings: Any = self.task
        fields = {"task": self.name, "settings": dataclasses.asdict(settings), "run": dataclasses.asdict(self.run)}
        return json.loads(json.dumps(fields, allow_nan=False))


def _find(path_or_name: str | os.PathLike[str], configs: Path) -> Path:
    shipped = {path.stem: path for path in configs.glob("*.json")}
    path = shipped.get(str(path_or_name), Path(path_or_name))
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no configuration {str(path)!r}. Give a JSON file, or one of the shipped ones: {sorted(shipped)}."
        )
    return path


def _replace(fields: Any, name: str, value: Any) -> None:
    """Set a field by its dotted name; objects on the way are made where the file leaves them out."""
    *parents, last = name.split(".")
    for parent in parents:
        if not isinstance(fields, dict):
            break
        fields = fields.setdefault(parent, {})
    if not isinstance(fields, dict):
        raise TypeError(f"Cannot set {name!r}: what holds it in the configuration is not an object but {fields!r}.")
    fields[last] = value
