"""Pretraining of the random features: `python -m sketching.pretrain --help`.

The program of `rangeformer.pretrain` with the task "sketch".
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rangeformer.pretrain import __main__ as program
from rangeformer.pretrain.task import Task
from sketching.learning.task import SketchTask

TASKS: dict[str, type[Task]] = {"sketch": SketchTask}
CONFIGS = Path(__file__).parent / "configs"
"""The config file of the shipped weights."""


def main(arguments: Sequence[str] | None = None, *, as_program: bool = False) -> int:
    """Train random features, as `rangeformer.pretrain` does it.

    Args:
        arguments: Of the command line; the program's own if None.
        as_program: The process is ours, so that its number of threads may be set.
    """
    return program.main(arguments, as_program=as_program, module="sketching.pretrain", tasks=TASKS, configs=CONFIGS)


if __name__ == "__main__":
    sys.exit(main(as_program=True))
