"""What each learned part is worth.

Trained against untrained, the best classical rival and the oracle, on matrices held out.

    python -m experiments.learned_gain.comparison --part neighbors --data-dir DIR
    python -m experiments.learned_gain.comparison --part range --data-dir DIR
    python -m experiments.learned_gain.comparison --part solve --matrix-dir DIR
    python -m experiments.learned_gain.comparison --part logdet --matrix-dir DIR

Every part reports the share of the headroom between the start (untrained) and the oracle that training has captured,
with a bootstrap interval over draws or matrices. Without folders the table of diamonds and matrices drawn from
distributions take their places.
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from experiments.common import datasets, environment, matrices
from experiments.common.models import members
from experiments.common.options import option, parse
from experiments.common.reporting import say, show_table, write_json
from experiments.learned_gain import direct as gain_direct
from experiments.learned_gain import neighbors as gain_neighbors
from experiments.learned_gain import pictures as gain_pictures
from experiments.learned_gain import range_features as gain_range
from experiments.ood import matrices as ood_matrices

TABLES = ("elevators", "kin40k", "protein")
PARTS = ("neighbors", "range", "solve", "logdet")
SHIPPED_ROWS = 2000  # of the table that comes with a package


@dataclass(frozen=True)
class Config:
    """Headroom captured by every learned part, with a bootstrap interval."""

    part: str = option("neighbors", "which learned part", PARTS)
    data_dir: Path | None = option(None, f"a folder with {', '.join(TABLES)} as npz files with arrays X, y")
    matrix_dir: Path | None = option(None, "a folder of square matrices: npz (scipy.sparse) or mtx files")
    n: int = option(4000, "rows of each table")
    num_draws: int = option(5, "draws of the rows, of right-hand sides and of probes")
    pure: str = option("pure", "the trained pure member: a shipped name or a .safetensors file")
    galerkin: str = option("galerkin", "the trained Galerkin member: a shipped name or a .safetensors file")
    output: Path = option(Path("results"), "folder of the JSON file and the picture")
    smoke: bool = option(False, "a tiny run that shows that everything works")

    def __post_init__(self):
        """Check what the types do not say."""
        if min(self.n, self.num_draws) < 1:
            raise ValueError("`--n` and `--num-draws` must be at least 1.")


def main(config: Config) -> dict:
    """Run, show, write, and return what was written."""
    if config.smoke:
        config = replace(config, n=min(config.n, 300), num_draws=2)
    environment.prepare()
    rows = measure(config)
    result = {
        "kind": f"learned_gain-{config.part}",
        "config": {name: value.name if isinstance(value, Path) else value for name, value in asdict(config).items()},
        "environment": environment.describe(torch.device("cpu")),
        "rows": rows,
    }
    result["gains"] = gains(config.part, rows)
    show_table(caption(result), *comparison(result))
    path = config.output / f"learned_gain-{config.part}.json"
    write_json(path, result, compact=True)
    gain_pictures.draw(path.with_suffix(".png"), result["gains"])
    say(f"wrote {path} and {path.with_suffix('.png')}")
    return result


def measure(config: Config) -> list[dict]:
    """The rows of one part."""
    if config.part in ("neighbors", "range"):
        module = gain_neighbors if config.part == "neighbors" else gain_range
        return module.measure(_tables(config), config.num_draws)
    ours = members(config.pure, config.galerkin, tiny=config.smoke)
    real = ood_matrices.imitations(config.num_draws) if config.matrix_dir is None else matrices.read(config.matrix_dir)
    real = real[:3] if config.smoke else real
    num_control = 2 if config.smoke else 2 * config.num_draws
    return gain_direct.measure(config.part, ours, real, config.num_draws, num_control)


def gains(part: str, rows: list[dict]) -> dict:
    """Shares of the headroom captured, from the rows of one part."""
    modules = {"neighbors": gain_neighbors.gains, "range": gain_range.gains}
    return modules.get(part, partial(gain_direct.gains, part))(rows)


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows of a part's one table."""
    part = result["config"]["part"]
    modules = {"neighbors": gain_neighbors.comparison, "range": gain_range.comparison}
    return modules.get(part, partial(gain_direct.comparison, part))(result)


def caption(result: dict, view: str = "") -> str:
    """What a part's numbers are."""
    part = result["config"]["part"]
    modules = {"neighbors": gain_neighbors.caption, "range": gain_range.caption}
    return modules.get(part, partial(gain_direct.caption, part))(result)


def _tables(config: Config) -> dict[str, tuple[datasets.Table, int]]:
    """The tables of --data-dir with n rows, and a smaller part of the one that is shipped with a package."""
    tables = {"diamonds": (datasets.load("diamonds"), min(config.n, SHIPPED_ROWS))}
    if config.data_dir is not None:
        tables |= {name: (datasets.load(name, None, config.data_dir), config.n) for name in TABLES}
    return tables


if __name__ == "__main__":
    main(parse(Config))
