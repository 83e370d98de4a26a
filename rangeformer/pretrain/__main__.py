"""Command line of the training program; other packages call `main` with their own tasks (`sketching.pretrain`)."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from rangeformer.models.checkpoint import card_path, save
from rangeformer.pretrain.card import make_card
from rangeformer.pretrain.curves import write_curves
from rangeformer.pretrain.distributed import started
from rangeformer.pretrain.plan import CONFIGS, Plan
from rangeformer.pretrain.progress import progress
from rangeformer.pretrain.resume import check_no_state, read_state, remove_state, state_path
from rangeformer.pretrain.tasks import TASKS
from rangeformer.pretrain.trainer import TrainingResult, pretrain

INTERRUPTED = 130
"""Exit status of a run that was asked to stop and can be resumed."""


def main(
    arguments: Sequence[str] | None = None,
    *,
    as_program: bool = False,
    module: str = "rangeformer.pretrain",
    tasks: Mapping[str, type[Any]] = TASKS,
    configs: Path = CONFIGS,
) -> int:
    """Train, write weights, card, history and (with matplotlib) the learning curve.

    Args:
        arguments: Of the command line; the program's own if None.
        as_program: The process is ours, so that its number of threads may be set. It cannot be set back: after an
            explicit `torch.set_num_threads` above one, LU of a batch goes wrong in the pinned version of torch (2.13.0,
            MKL).
        module: What the program is called by: `python -m {module}`.
        tasks: Classes of `Task`, by name.
        configs: Folder of the config files that go by their names.
    """
    parser = _parser(module, configs)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        try:
            if options.out.suffix != ".safetensors":
                raise ValueError(f"--out must end in .safetensors. Got {str(options.out)!r}.")
            plan = Plan.from_file(options.config, _changes(options), tasks=tasks, configs=configs)
            processes = stack.enter_context(started(plan.run.device, plan.run.num_shards))
            saved = read_state(options.out, plan) if options.resume else check_no_state(options.out)
        except (ValueError, TypeError, OSError) as error:
            parser.error(str(error))
        if as_program and plan.run.num_threads not in (None, torch.get_num_threads()):
            torch.set_num_threads(plan.run.num_threads)
        processes.wait()  # the first must not write before all have looked
        report = stack.enter_context(progress(quiet=options.quiet or not processes.first))
        result = pretrain(plan, out=options.out, saved=saved, report=report, processes=processes)
        if processes.first:
            print(_write(options.out, plan, result))
    return 0 if result.finished else INTERRUPTED


def _write(out: Path, plan: Plan, result: TrainingResult) -> str:
    """Write what a finished run leaves, and say so."""
    if not result.finished:
        return f"stopped after step {result.record.step}; {state_path(out)} is written, continue with --resume"
    save(result.model, out, make_card(plan, result))
    write_curves(out, plan, result)
    remove_state(out)
    record = result.record
    verdict = (
        "better than untrained on the validation distributions"
        if record.improved
        else "NOT better than untrained: the untrained weights were written"
    )
    lines = [f"{record.step} steps in {record.minutes:.1f} min ({record.num_skipped} skipped); {verdict}."]
    width = max(12, *(len(key) + 2 for key in record.best))
    lines.append(" " * 9 + "".join(f"{key:>{width}}" for key in record.best))
    for name, figures in (("untrained", record.untrained), ("written", record.best)):
        lines.append(f"{name:9}" + "".join(f"{value:{width}.4g}" for value in figures.values()))
    return "\n".join([*lines, f"wrote {out} and {card_path(out).name}"])


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    """What the options replace in the config file, by dotted name; `run.key` in --set is a field of the run."""
    named = {"num_steps": options.steps, "max_minutes": options.minutes, "seed": options.seed}
    named |= {"num_threads": options.threads, "device": options.device}
    changes = {f"run.{name}": value for name, value in named.items() if value is not None}
    for assignment in options.set:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ValueError(f"--set must be given as key=value. Got {assignment!r}.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text  # a word needs no quotes
        changes[key if key.startswith("run.") else f"settings.{key}"] = value
    return changes


def _parser(module: str, configs: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description="Train a model on structured matrices. Starts untrained, validates on distributions and sizes that "
        "it does not train on, and never writes a model that is worse there than the untrained one. With several "
        "processes: "
        f"torchrun --nproc-per-node 2 -m {module} ...",
    )
    shipped = ", ".join(sorted(path.stem for path in configs.glob("*.json")))
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help=f"JSON file, or the name of a shipped one: {shipped}")
    add("--out", required=True, type=Path, metavar="FILE", help="weights file to write, ending in .safetensors")
    add("--resume", action="store_true", help="go on from the state that an interrupted run left beside --out")
    add("--minutes", type=float, help="largest wall time")
    add("--steps", type=int, help="largest number of optimiser steps")
    add("--seed", type=int, help="seed of weights and matrices")
    add("--threads", type=int, help="CPU threads of each process")
    add("--device", help="cpu or cuda")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a setting of the task, or with run.KEY a field of the run; values are JSON, nested keys have "
        "dots",
    )
    add("--quiet", action="store_true", help="print the summary only")
    return parser


if __name__ == "__main__":
    sys.exit(main(as_program=True))
