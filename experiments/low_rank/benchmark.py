"""Low-rank approximation of real matrices: error and time against passes, ours beside everybody's.

    OMP_NUM_THREADS=1 python -m experiments.low_rank.benchmark
    OMP_NUM_THREADS=1 python -m experiments.low_rank.benchmark --data-dir DIR

Every method at its defaults and at equal passes, on the matrices that installed packages carry (and those of a folder),
with the optimum from a dense SVD; a control with Haar singular vectors; and whether error estimates and tolerances are
kept. Ranks below the full one are for our own sketches at two passes. Times of large matrices are
`sketching_speed.py`'s.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

import sketching
from experiments.common import environment
from experiments.common.options import option, parse
from experiments.common.reporting import progress, say, show_table, write_json
from experiments.low_rank import pictures as sketching_pictures
from experiments.low_rank import views as sketching_views
from experiments.low_rank.contenders import SKETCHES, Contender, contenders, error
from experiments.low_rank.matrices import Case, cases
from experiments.low_rank.rows import FLOOR, losses, real

caption, comparison = sketching_views.caption, sketching_views.comparison

_LAW_CASE = "china"  # whose distribution is drawn, if it is there
_TOLERANCES = (0.9, 1.05, 1.3)  # over the optimum's relative error: one that no rank can meet, a tight and an easy one


@dataclass(frozen=True)
class Config:
    """Error and time of low-rank approximations against passes, on real matrices."""

    data_dir: Path | None = option(
        None, "a folder of npz (scipy.sparse matrices or arrays) or mtx files to measure as well"
    )
    num_seeds: int = option(3, "draws of every sketch")
    num_more_seeds: int = option(30, "other seeds for matrices and settings where ours came out worse")
    fractions: str = option("0.25,0.5,1", "ranks, as fractions of min(40, min(m, n) / 3)")
    output: Path = option(Path("results"), "folder of the JSON file and the pictures")
    smoke: bool = option(False, "a tiny run that shows that everything works")

    def __post_init__(self):
        """Check what the types do not say."""
        if self.num_seeds < 1:
            raise ValueError(f"`--num-seeds` must be at least 1. Got {self.num_seeds}.")
        if self.num_more_seeds < 2:
            raise ValueError(f"`--num-more-seeds` must be at least 2. Got {self.num_more_seeds}.")
        if not all(0 < share <= 1 for share in self.shares):
            raise ValueError(f"`--fractions` must be numbers in (0, 1], with commas. Got {self.fractions!r}.")

    @property
    def shares(self) -> list[float]:
        """The fractions as numbers."""
        return [float(part) for part in self.fractions.split(",")]


def main(config: Config) -> dict:
    """Run, show, write, and return what was written."""
    if config.smoke:
        config = replace(config, num_seeds=1, num_more_seeds=2, fractions="1")
    environment.prepare()
    chosen = cases(config.data_dir, smoke=config.smoke)
    rows, tolerances = measure(chosen, contenders(), config)
    result = {
        "kind": "sketching-benchmark",
        "config": {name: value.name if isinstance(value, Path) else value for name, value in asdict(config).items()},
        "environment": describe(),
        "trained": any((Path(sketching.__file__).parent / "weights").glob("*.safetensors")),
        "cases": [
            {"name": case.name, "shape": list(case.A.shape), "rank": case.rank, "is_control": case.is_control}
            for case in chosen
        ],
        "rows": rows,
        "tolerances": tolerances,
    }
    result["again"] = measure_again(chosen, contenders(), result, config)
    for view in sketching_views.VIEWS:
        show_table(caption(result, view), *comparison(result, view))
    path = config.output / "sketching-benchmark.json"
    write_json(path, result, compact=True)
    sketching_pictures.draw_pareto(path.with_suffix(".png"), sketching_views.points(rows))
    drawn = {case.name: case for case in chosen}
    case = drawn.get(_LAW_CASE, chosen[0])
    sketching_pictures.draw_distribution(config.output / "sketching-law.png", case, num_draws=5 if config.smoke else 60)
    say(f"wrote {path}, {path.with_suffix('.png')} and {config.output / 'sketching-law.png'}")
    return result


def describe() -> dict:
    """The environment, with the versions of the rivals."""
    found = environment.describe(torch.device("cpu"))
    for package in ("scikit-learn", "dask"):
        found["versions"][package] = environment.version_of(package)
    return found


def measure(chosen: list[Case], methods: list[Contender], config: Config) -> tuple[list[dict], list[dict]]:
    """Every method on every matrix at every rank, and what comes of tolerances."""
    rows, tolerances = [], []
    with progress("matrices", len(chosen)) as done:
        for case in chosen:
            for share in config.shares:
                rank = max(1, round(share * case.rank))
                for method in methods if share == 1 else [one for one in methods if one.name in SKETCHES]:
                    rows += _runs(case, rank, share, method, range(config.num_seeds))
            tolerances += _tolerances(case, range(config.num_seeds))
            done(case.name)
    return rows, tolerances


def measure_again(chosen: list[Case], methods: list[Contender], result: dict, config: Config) -> list[dict]:
    """Ratio of mean excesses, ours over the better rival's, with seeds that had no part in its being called a loss."""
    by_name, cases_by_name = {method.name: method for method in methods}, {case.name: case for case in chosen}
    seeds = range(config.num_seeds, config.num_seeds + config.num_more_seeds)
    found = []
    for loss in losses(real(result)):
        case = cases_by_name[loss.case]
        ours, rival = (
            np.array([row["excess"] for row in _runs(case, case.rank, 1.0, by_name[name], seeds)])
            for name in (loss.methods[0], loss.rival)
        )
        ratio = ours.mean() / max(rival.mean(), FLOOR)
        spread = [np.std(x, ddof=1) / len(x) ** 0.5 / max(x.mean(), FLOOR) for x in (ours, rival)]
        error = ratio * float(np.hypot(*spread))  # to first order
        found.append(
            {"case": loss.case, "setting": loss.setting, "ratio": _short(ratio), "standard_error": _short(error)}
        )
    return found


def _runs(case: Case, rank: int, share: float, method: Contender, seeds: Iterable[int]) -> list[dict]:
    norm, optimum, device = case.optimum(0), case.optimum(rank), torch.device("cpu")
    method.run(case.A, rank, 0)  # the first call pays for what later ones find done
    rows = []
    for seed in seeds:
        with environment.stopwatch(device, environment.steady_clock(device)) as clock:
            answer = method.run(case.A, rank, seed)
        found = error(case.A, answer.factors)
        rows.append(
            {
                "case": case.name,
                "method": method.name,
                "family": method.family,
                "setting": method.setting,
                "rank": rank,
                "fraction": share,
                "seed": seed,
                "passes": answer.num_passes,
                "entries": _short(answer.entries / case.A.size),
                "seconds": _short(clock[0]),
                "excess": _short(found / optimum - 1 if optimum > 0 else 0.0),
                "error": _short(found / norm),
                "estimate": None if answer.estimate is None else _short(answer.estimate),
            }
        )
    return rows


def _short(value: float) -> float:
    """Five digits: there are thousands of rows."""
    return float(f"{value:.5g}")


def _tolerances(case: Case, seeds: Iterable[int]) -> list[dict]:
    """Ask for tolerances around the optimum; was what the result says of them true?"""
    found = []
    for factor in _TOLERANCES:
        tolerance = factor * case.optimum(case.rank) / case.optimum(0)
        for seed in seeds:
            generator = torch.Generator().manual_seed(100 + seed)
            result = sketching.randomized_svd(case.A, case.rank, rtol=tolerance, generator=generator)
            reached = error(case.A, tuple(part.numpy() for part in result)) / case.optimum(0)
            found.append(
                {
                    "case": case.name,
                    "factor": factor,
                    "seed": seed,
                    "said": bool(result.converged),
                    "met": bool(reached <= tolerance * (1 + 1e-9)),
                    "passes": result.num_passes,
                    "error_over_tolerance": _short(reached / tolerance),
                }
            )
    return found


if __name__ == "__main__":
    main(parse(Config))
