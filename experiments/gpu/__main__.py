"""Everything that a GPU is asked, in one command and within a time budget.

    python -m experiments.gpu --minutes 25 --output experiments/results
    python -m experiments.gpu --device cpu --smoke

A part writes its JSON file into a folder named after the device as soon as it is done; a part whose file is there and
complete is not run again, so that a run that was stopped goes on where it was. A part that fails, or finds no memory,
says so and the next one begins.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments import gp_regression
from experiments.common import datasets
from experiments.common.options import option, parse
from experiments.common.reporting import say, seconds, show_table, write_json
from experiments.gpu import ceilings, clock, machine, members, products, sketches, steps, throughput, views
from experiments.gpu.part import Request
from experiments.krylov import comparison as krylov_comparison

STEP_SIZES = (20_000, 50_000, 100_000)


@dataclass(frozen=True)
class Config:
    """The GPU part of every experiment.

    Ceilings, kernel products, training steps, sketches, solvers, members, pretraining.
    """

    minutes: float = option(25.0, "time budget; a part is begun only within it")
    device: str = option("cuda" if torch.cuda.is_available() else "cpu", "where to compute")
    parts: str = option("", "only these parts, comma-separated; all if empty")
    data_dir: Path | None = option(None, "a folder of npz files with arrays X and y: more tables")
    matrix_dir: Path | None = option(None, "a folder of matrices: npz (scipy.sparse) or mtx files")
    seed: int = option(0, "of everything random")
    output: Path = option(Path("results"), "folder that gets a folder named after the device")
    smoke: bool = option(False, "tiny sizes that show that everything works")

    def __post_init__(self):
        """Check what the types do not say."""
        if self.minutes <= 0:
            raise ValueError(f"`--minutes` must be positive. Got {self.minutes:g}.")
        if unknown := {name for name in self.parts.split(",") if name} - set(PARTS):
            raise ValueError(f"`--parts` must name some of {', '.join(PARTS)}. Got {', '.join(sorted(unknown))}.")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError("`--device` is cuda, and torch sees no GPU here: choose cpu.")


Part = Callable[[Request], dict]


def _step(index: int) -> Part:
    """The training step at one size, by size: a part each, so that a stopped run keeps the smaller ones."""

    def measure(request: Request) -> dict:
        sizes = (
            (300, 400, 500) if request.smoke else STEP_SIZES if request.device.type == "cuda" else (1000, 2000, 4000)
        )
        return steps.measure(request, sizes[index])

    return measure


def _regression(request: Request) -> dict:
    sizes = {"n": 900, "num_test": 100} if request.smoke else {"n": 20_000} if request.device.type == "cuda" else {}
    return gp_regression.main(
        gp_regression.Config(
            dataset=datasets.default_name(),
            device=request.device.type,
            steps=2 if request.smoke else 5,
            seed=request.seed,
            output=request.folder,
            smoke=request.smoke,
            **sizes,
        )
    )


def _krylov(request: Request) -> dict:
    on_gpu = request.device.type == "cuda"
    return krylov_comparison.main(
        krylov_comparison.Config(
            sizes="4000,16000" if on_gpu else "150" if request.smoke else "1000,2000",
            spectrum_size=4000 if on_gpu else 100 if request.smoke else 500,
            data_dir=request.data_dir,
            matrix_dir=request.matrix_dir,
            device=request.device.type,
            dtype="float32",
            num_seeds=2,
            minutes=max(request.seconds_left, 0) / 60,
            seed=request.seed,
            output=request.folder,
            smoke=request.smoke,
        )
    )


# In the order of what one would miss most.
PARTS: dict[str, Part] = {
    "ceilings": ceilings.measure,
    "products": products.measure,
    "step-small": _step(0),
    "step-middle": _step(1),
    "sketches": sketches.measure,
    "step-large": _step(2),
    "throughput": throughput.measure,
    "members": members.measure,
    "regression": _regression,
    "krylov": _krylov,
}


def main(config: Config) -> dict[str, dict]:
    """Run what is not there yet, part by part, and return all results."""
    device = torch.device(config.device)
    folder = config.output / machine.folder_name(device)
    request = Request(
        device=device,
        folder=folder,
        deadline=time.monotonic() + 60 * config.minutes,
        smoke=config.smoke,
        data_dir=config.data_dir,
        matrix_dir=config.matrix_dir,
        seed=config.seed,
    )
    found = {}
    wanted = [name for name in config.parts.split(",") if name] or list(PARTS)
    with machine.full_float32():
        for name in wanted:
            path = folder / f"{name}.json"
            if path.exists() and (result := json.loads(path.read_text()))["complete"]:
                say(f"{name}: there already")
            elif request.seconds_left < 0:
                say(f"{name}: left out, the time is up")
                continue
            else:
                result = _measured(name, request)
                write_json(path, result, compact=True)
            found[name] = result
            if "failed" not in result and name in views.TABLES:
                show_table(views.caption(result), *views.comparison(result))
    say(f"wrote {len(found)} of {len(wanted)} parts into {folder.name}")
    return found


def _measured(name: str, request: Request) -> dict:
    """A part's result with what it depends on; `complete` is False where time or memory ended it."""
    result: dict = {
        "kind": f"gpu-{name}",
        "environment": machine.describe(request.device),
        "clock": clock.name(request.device),
        "seed": request.seed,
    }
    start = time.monotonic()
    try:
        measured = PARTS[name](request)
        # a whole experiment writes a file of its own beside this one
        has_file = "kind" in measured or "methods" in measured
        result |= {"complete": measured.get("complete", True)} | ({} if has_file else measured)
    except RuntimeError as error:  # out of memory among them; the other parts can still run
        result |= {"complete": False, "failed": str(error).splitlines()[0]}
    elapsed = time.monotonic() - start
    say(
        f"{name}: {result.get('failed', 'done' if result['complete'] else 'as far as time allowed')}, "
        f"{seconds(elapsed)}"
    )
    return result | {"smoke": request.smoke, "seconds": elapsed}


if __name__ == "__main__":
    main(parse(Config))
