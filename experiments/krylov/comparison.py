"""RangeFormer against CG, Lanczos and what has grown from them: error against passes, products and seconds.

    python -m experiments.krylov.comparison
    python -m experiments.krylov.comparison --data-dir TABLES --matrix-dir MATRICES
    python -m experiments.krylov.comparison --device cuda --dtype float32 --sizes 4000,16000,40000

Solves with one and with 16 right-hand sides, log-determinants and leading eigenpairs; on kernel matrices of tables, on
prescribed spectra and on a folder's matrices. Every point is a run of its own, set-up included, its error recomputed in
float64.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from experiments.common import environment
from experiments.common.models import PURE, members
from experiments.common.options import option, parse, whole_numbers
from experiments.common.reporting import progress, say, show_table, write_json
from experiments.krylov import eigenpairs, logdets, pictures, solves, views
from experiments.krylov.contest import Method, measure
from experiments.krylov.matrices import (
    KERNEL,
    NUM_COLUMNS,
    Case,
    folder_cases,
    kernel_case,
    specifications,
    spectrum_case,
    truth,
)
from rangeformer.models.looped_model import LoopedModel

DTYPES = {"float32": torch.float32, "float64": torch.float64}
PROBLEMS = ("solve-1", "solve-16", "eigenpairs", "logdet")


@dataclass(frozen=True)
class Config:
    """Solves, log-determinants and leading eigenpairs: ours, CG, Lanczos and their descendants."""

    sizes: str = option(
        "2000,4000,8000",
        "rows of the default table's kernel matrix (diamonds, where plotnine is installed), comma-separated; other "
        "tables: the smallest",
    )
    spectrum_size: int = option(2000, "rows of the matrices with a prescribed spectrum")
    data_dir: Path | None = option(None, "a folder of npz files with arrays X and y: more tables")
    matrix_dir: Path | None = option(None, "a folder of matrices: npz (scipy.sparse) or mtx files")
    problems: str = option(",".join(PROBLEMS), "which problems, comma-separated")
    num_seeds: int = option(3, "seeds of an estimate of the log-determinant")
    device: str = option("cpu", "where to compute")
    dtype: str = option("float64", "precision of A and of everybody's iteration", tuple(DTYPES))
    minutes: float | None = option(None, "start no further matrix after so many minutes")
    seed: int = option(0, "of rows, right-hand sides and probes")
    output: Path = option(Path("results"), "folder of the JSON file and the pictures")
    smoke: bool = option(False, "a small run that shows that everything works")

    def __post_init__(self):
        """Check what the types do not say."""
        if min(*self.list_of_sizes, self.spectrum_size) < 100 or self.num_seeds < 1:
            raise ValueError("`--sizes` and `--spectrum-size` must be at least 100, `--num-seeds` at least 1.")
        if unknown := set(self.problems.split(",")) - set(PROBLEMS):
            raise ValueError(f"`--problems` must name some of {', '.join(PROBLEMS)}. Got {', '.join(sorted(unknown))}.")

    @property
    def list_of_sizes(self) -> list[int]:
        """The sizes as numbers."""
        return whole_numbers("sizes", self.sizes)


def main(config: Config) -> dict:
    """Run, show, write after every matrix, and return what was written."""
    if config.smoke:
        small = str(min(500, *config.list_of_sizes))
        config = replace(
            config, sizes=small, spectrum_size=min(200, config.spectrum_size), num_seeds=1, matrix_dir=None
        )
    environment.prepare()
    device, dtype = torch.device(config.device), DTYPES[config.dtype]
    path, start = config.output / f"{name_of(config)}.json", time.monotonic()
    result = _begun(path, config, device)
    done = {case["name"] for case in result["cases"]}
    pure = members("pure", "galerkin").get(PURE)
    makers = _makers(config, dtype, device)
    with progress("Matrices", len(makers)) as advance:
        for make in makers:
            result["complete"] = config.minutes is None or time.monotonic() < start + 60 * config.minutes
            if not result["complete"]:
                say(f"stopped after {config.minutes:g} minutes; the same command goes on from here")
                break
            case = make()
            if case.name not in done:
                rows = compare(case, config, pure)
                result["cases"].append({"name": case.name, "kind": case.kind, "n": case.num_rows})
                result["rows"] += rows
            result["complete"] = len(result["cases"]) == len(makers)
            write_json(path, result, compact=True)
            advance(case.name)
    write_json(path, result, compact=True)
    if result["rows"]:
        for view in views.VIEWS:
            show_table(views.caption(result, view), *views.comparison(result, view))
        for problem in config.problems.split(","):
            pictures.draw(path.with_name(f"{path.stem}-{problem}.png"), result, problem)
        say(f"wrote {path} and a picture for every problem")
    return result


def _begun(path: Path, config: Config, device: torch.device) -> dict[str, Any]:
    """What is in the file of an unfinished run with the same options on the same machine, or an empty result."""
    options = {name: value.name if isinstance(value, Path) else value for name, value in asdict(config).items()}
    fresh = {
        "kind": "krylov-comparison",
        "config": options,
        "environment": environment.describe(device),
        "clock": environment.steady_clock(device).__name__,
        "complete": False,
        "cases": [],
        "rows": [],
    }
    found = json.loads(path.read_text()) if path.exists() else fresh
    mine = {"config": options | {"minutes": None, "output": None}, "environment": fresh["environment"]}
    theirs = {"config": found["config"] | {"minutes": None, "output": None}, "environment": found["environment"]}
    return found if mine == theirs and not found["complete"] else fresh


def name_of(config: Config) -> str:
    """What the files of a run are called; the precision is said where it is not the usual one."""
    return "krylov_comparison" if config.dtype == "float64" else f"krylov_comparison-{config.dtype}"


def compare(case: Case, config: Config, pure: LoopedModel | None) -> list[dict]:
    """Every rival's points on one matrix, problem by problem."""
    exact = truth(case)
    contests: dict[str, tuple[list[Method], Callable[[Any], float], Sequence[int], bool]] = {
        **{f"solve-{k}": (solves.methods(k, pure), solves.residual(case, k), range(1), True) for k in (1, NUM_COLUMNS)},
        "eigenpairs": (
            eigenpairs.methods(float(exact.eigenvalues[0])),
            eigenpairs.worst_pair(case, exact),
            range(1),
            True,
        ),
        "logdet": (logdets.methods(), logdets.error_per_row(case, exact.logdet), range(config.num_seeds), False),
    }
    rows = []
    for problem in config.problems.split(","):
        methods, error, seeds, has_tolerance = contests[problem]
        methods = [method for method in methods if method.suits(case)]
        with progress(f"{case.name}: {problem}", len(methods)) as advance:
            for method in methods:
                stops = has_tolerance and isinstance(method.settings[0], float) and not method.is_exact
                points = measure(case, method, error, [config.seed + seed for seed in seeds], stops=stops)
                rows.append(
                    {"problem": problem, "case": case.name, "method": method.label, "family": method.family}
                    | {"is_exact": method.is_exact, "points": points}
                )
                advance(method.label)
    return rows


def _makers(config: Config, dtype: torch.dtype, device: torch.device) -> list[Callable[[], Case]]:
    """Matrices to be made one at a time, since several large ones do not fit together."""

    def make(kind: str, name: str, n: int) -> Callable[[], Case]:
        if kind == KERNEL:
            return lambda: kernel_case(name, n, config.data_dir, dtype, device, config.seed)
        return lambda: spectrum_case(name, n, dtype, device, config.seed)

    chosen = specifications(config.list_of_sizes, config.data_dir, config.spectrum_size)
    if config.smoke:  # one of each kind shows that it works
        chosen = [*{kind: (kind, name, n) for kind, name, n in chosen}.values()]
    found = [make(kind, name, n) for kind, name, n in chosen]
    if config.matrix_dir is not None:
        found += [lambda case=case: case for case in folder_cases(config.matrix_dir, dtype, device, config.seed)]
    return found


if __name__ == "__main__":
    main(parse(Config))
