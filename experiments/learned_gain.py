"""What each learned part is worth: trained against untrained, the best classical rival and the oracle, on matrices held out.

    python experiments/learned_gain.py --part neighbors --data-dir DIR
    python experiments/learned_gain.py --part range --data-dir DIR
    python experiments/learned_gain.py --part solve --matrix-dir DIR
    python experiments/learned_gain.py --part logdet --matrix-dir DIR

Every part reports the share of the headroom between the start (untrained) and the oracle that training has captured, with a bootstrap
interval over draws or matrices. Without folders the table of diamonds and matrices drawn from laws take their places.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from experiments import datasets, environment, gain_neighbors
from experiments.options import option, parse
from experiments.reporting import say, show_table, write_json

TABLES = ("elevators", "kin40k", "protein")


@dataclass(frozen=True)
class Config:
    """Headroom captured by every learned part, with a bootstrap interval."""

    part: str = option("neighbors", "which learned part", ("neighbors", "range", "solve", "logdet"))
    data_dir: Path | None = option(None, f"a folder with {', '.join(TABLES)} as npz files with arrays X, y")
    matrix_dir: Path | None = option(None, "a folder of square matrices, npz (scipy.sparse) or mtx")
    n: int = option(4000, "rows of each table")
    num_draws: int = option(5, "draws of the rows, of right-hand sides and of probes")
    output: Path = option(Path("results"), "folder of the JSON file and the picture")
    smoke: bool = option(False, "a tiny run that shows that everything works")


def main(config: Config) -> dict:
    """Run, show, write, and return what was written."""
    if config.smoke:
        config = replace(config, n=300, num_draws=2)
    environment.prepare()
    module, measure = PARTS[config.part]
    rows = measure(config)
    result = {
        "kind": f"learned_gain-{config.part}",
        "config": {name: value.name if isinstance(value, Path) else value for name, value in asdict(config).items()},
        "environment": environment.describe(torch.device("cpu")),
        "rows": rows,
        "gains": module.gains(rows),
    }
    show_table(module.caption(result), *module.comparison(result))
    path = config.output / f"learned_gain-{config.part}.json"
    write_json(path, result)
    say(f"wrote {path}")
    return result


def _tables(config: Config) -> dict[str, tuple[datasets.Table, int]]:
    """The tables of --data-dir with n rows, and a smaller part of the one that is shipped with a package."""
    tables = {"diamonds": (datasets.load("diamonds"), min(config.n, 2000))}
    if config.data_dir is not None:
        tables |= {name: (datasets.load(name, None, config.data_dir), config.n) for name in TABLES}
    return tables


PARTS: dict[str, tuple] = {
    "neighbors": (gain_neighbors, lambda config: gain_neighbors.measure(_tables(config), config.num_draws)),
}


if __name__ == "__main__":
    main(parse(Config))
