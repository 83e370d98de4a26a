"""Time of whole low-rank calls on matrices large enough for it to matter.

At equal passes, and to the accuracy of scikit-learn's defaults.

    OMP_NUM_THREADS=1 python -m experiments.low_rank.speed

Gaussian kernels of MNIST digits, in both precisions. Methods take turns, every time is the least of all turns, and with
one thread it is CPU time, which other work on the machine disturbs least.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse.linalg
import torch

from experiments.common import environment
from experiments.common.options import option, parse, whole_numbers
from experiments.common.reporting import progress, say, show_table, write_json
from experiments.common.shipped_matrices import mnist_kernel
from experiments.low_rank.contenders import FEW, Contender, block_krylov, contenders, error, named, ours
from experiments.low_rank.rows import number

VIEWS = ("equal", "scikit-learn")
_SCIKIT = "scikit-learn randomized_svd"
_KRYLOV = "block Krylov, rangeformer"
_NARROW = f"{_KRYLOV}, 1 iteration"
_WIDE = f"{_KRYLOV}, 1 iteration, b = 1.5 rank, 10 rank rows read"
_EQUAL = {  # what is compared: with what of as many passes
    **{named(name, FEW): named("gaussian", "0") for name in ("rangeformer", "sampled-rows")},
    **{
        named(name, count): named("gaussian", count)
        for count in ("0", "1")
        for name in ("rangeformer", "sampled-rows", "sparse-sign")
    },
}
_AIMED = (_SCIKIT, named("rangeformer", "2"), named("rangeformer", "3"), _NARROW, _WIDE, _KRYLOV)


@dataclass(frozen=True)
class Config:
    """Time of low-rank approximations of kernel matrices."""

    sizes: str = option("2000,4000", "rows and columns, at most 5000, with commas")
    rank: int = option(40, "triplets wanted")
    num_turns: int = option(5, "turns of every method")
    output: Path = option(Path("results"), "folder of the JSON file")
    smoke: bool = option(False, "a tiny run that shows that everything works")

    def __post_init__(self):
        """Check what the types do not say."""
        if min(self.rank, self.num_turns) < 1:
            raise ValueError("`--rank` and `--num-turns` must be at least 1.")
        if not all(20 * self.rank <= size <= 5000 for size in self.lengths):
            raise ValueError(f"`--sizes` must be between 20 rank and 5000. Got {self.sizes!r}.")

    @property
    def lengths(self) -> list[int]:
        """The sizes as numbers."""
        return whole_numbers("sizes", self.sizes)


def main(config: Config) -> dict:
    """Run, show, write, and return what was written."""
    if config.smoke:
        config = replace(config, sizes="120", rank=6, num_turns=1)
    environment.prepare()
    rows, methods = [], chosen(config.rank)
    with progress("matrices", 2 * len(config.lengths)) as done:
        for size in config.lengths:
            A = mnist_kernel(size)
            optimum = _optimum(A, config.rank)
            for dtype in ("float32", "float64"):
                rows += measure(A.astype(dtype), optimum, methods, config)
                done(f"{size}, {dtype}")
    result = {
        "kind": "sketching-speed",
        "config": {name: value for name, value in asdict(config).items() if name != "output"},
        "environment": environment.describe(torch.device("cpu")),
        "rows": rows,
    }
    result["environment"]["versions"]["scikit-learn"] = environment.version_of("scikit-learn")
    for view in VIEWS:
        show_table(caption(result, view), *comparison(result, view))
    path = config.output / "sketching-speed.json"
    write_json(path, result, compact=True)
    say(f"wrote {path}")
    return result


def chosen(rank: int) -> list[Contender]:
    """Those that are compared here, scikit-learn among them.

    Args:
        rank: Triplets wanted.
    """
    wide = block_krylov("rangeformer", 3 * rank // 2, 1, 10 * rank)
    more = [
        Contender(named("rangeformer", "3"), "rangeformer", ours("rangeformer", 3), "3"),
        Contender(_NARROW, "block Krylov", block_krylov("rangeformer", None, 1), "1"),
        Contender(_WIDE, "block Krylov", wide, "1"),
    ]
    wanted = {*_EQUAL, *_EQUAL.values(), *_AIMED}
    return [one for one in (*contenders(), *more) if one.name in wanted]


def measure(A: np.ndarray, optimum: float, methods: list[Contender], config: Config) -> list[dict]:
    """Time, passes and excess error of every method.

    Args:
        A: The matrix, in the dtype that is measured.
        optimum: The least Frobenius error of the rank.
        methods: Which.
        config: Rank and turns.
    """
    device = torch.device("cpu")
    found = {method.name: [] for method in methods}
    for turn in range(-1, config.num_turns):  # the first call of each pays for what later ones find done
        for method in methods:
            with environment.stopwatch(device, environment.steady_clock(device)) as clock:
                answer = method.run(A, config.rank, max(turn, 0))
            if turn >= 0:
                factors = tuple(part.astype(np.float64) for part in answer.factors)
                found[method.name].append((clock[0], error(A.astype(np.float64), factors) / optimum - 1, answer))
    return [
        {
            "size": len(A),
            "dtype": str(A.dtype),
            "method": name,
            "passes": turns[-1][2].num_passes,
            "entries": turns[-1][2].entries / A.size,
            "seconds": min(seconds for seconds, _, _ in turns),
            "excess": float(np.mean([excess for _, excess, _ in turns])),
        }
        for name, turns in found.items()
    ]


def _optimum(A: np.ndarray, rank: int) -> float:
    """Least error of a rank, A being symmetric."""
    values = scipy.sparse.linalg.eigsh(A, rank, v0=np.ones(len(A)), return_eigenvectors=False)
    return float(np.sqrt(np.square(A).sum() - np.square(values).sum()))


def caption(result: dict, view: str = "") -> str:
    """What the numbers of a view are."""
    config = result["config"]
    titles = {
        "equal": "Time of the whole call over that of the Gaussian one of as many passes",
        "scikit-learn": "To the accuracy of scikit-learn's defaults: passes, excess error over the best rank-r, and "
        "time over scikit-learn's",
    }
    return (
        f"{titles[view or 'equal']}; Gaussian kernels of MNIST, rank {config['rank']}, best of {config['num_turns']} "
        "turns"
    )


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows of a view."""
    table: Callable[[dict], tuple[list[str], list[list[str]]]] = _aimed if view == "scikit-learn" else _equal
    return table(result)


def _equal(result: dict) -> tuple[list[str], list[list[str]]]:
    tables = _by_matrix(result)
    rows = [
        [
            f"{method}, {next(iter(tables.values()))[method]['passes']} passes",
            *(f"{table[method]['seconds'] / table[base]['seconds']:.2f}" for table in tables.values()),
        ]
        for method, base in _EQUAL.items()
    ]
    return ["", *tables], rows


def _aimed(result: dict) -> tuple[list[str], list[list[str]]]:
    tables = _by_matrix(result)
    rows = []
    for method in _AIMED:
        cells = []
        for table in tables.values():
            own, scikit = table[method], table[_SCIKIT]
            cells.append(f"{number(max(own['excess'], 0.0))}, {own['seconds'] / scikit['seconds']:.2f}")
        most = max(table[method]["passes"] + table[method]["entries"] for table in tables.values())
        rows.append([method, f"{most:.2f}", *cells])
    return ["", "passes, with rows read", *(f"{name}: excess, time" for name in tables)], rows


def _by_matrix(result: dict) -> dict[str, dict[str, dict]]:
    tables: dict[str, dict[str, dict]] = {}
    for row in result["rows"]:
        tables.setdefault(f"{row['size']:,} {row['dtype']}", {})[row["method"]] = row
    return tables


if __name__ == "__main__":
    main(parse(Config))
