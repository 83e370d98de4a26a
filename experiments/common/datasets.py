"""Regression tables: where they come from, how they are cleaned, split and standardised."""

import csv
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Worst to best, in the order of the table's documentation.
DIAMOND_GRADES = {
    "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
    "color": ["J", "I", "H", "G", "F", "E", "D"],
    "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
}


SYNTHETIC = "synthetic"
"""Name of the table that needs no package."""


@dataclass(frozen=True)
class Table:
    """A regression problem before any split."""

    name: str
    features: np.ndarray  # (rows, d), float64
    target: np.ndarray  # (rows,), float64
    target_name: str
    log_target: bool = False  # `target` is the natural logarithm of what a person would read
    test_mask: np.ndarray | None = None  # (rows,), where the literature fixes the split


@dataclass(frozen=True)
class Split:
    """Standardised tensors, with what is needed to go back to the target's own units."""

    train_x: Tensor  # (n, d)
    train_y: Tensor  # (n,)
    test_x: Tensor  # (m, d)
    test_y: Tensor  # (m,)
    target_mean: float
    target_std: float


def load(name: str, data: Path | None = None, data_dir: Path | None = None, target: str | None = None) -> Table:
    """The table `name`: `data` reads a CSV file, `data_dir` a folder of npz sets, else the shipped diamonds."""
    if data is not None:
        return read_csv(data, target)
    if data_dir is not None:
        return read_npz(data_dir / f"{name}.npz")
    if name == "diamonds":
        return diamonds()
    if name == SYNTHETIC:
        return synthetic()
    raise ValueError(f"`--dataset {name}` is not shipped with a package: give its folder with `--data-dir`.")


def default_name() -> str:
    """The diamonds, or the synthetic table where the package that ships them is not installed."""
    return SYNTHETIC if importlib.util.find_spec("plotnine") is None else "diamonds"


def synthetic(num_rows: int = 120_000) -> Table:
    """Nine correlated features of four hidden ones and a smooth noisy target, for sizes that no shipped table has."""
    draw = np.random.default_rng(0)
    hidden = draw.standard_normal((num_rows, 4))
    mixed = np.tanh(hidden @ draw.standard_normal((4, 5))) + 0.3 * draw.standard_normal((num_rows, 5))
    target = np.sin(2 * hidden[:, 0]) + hidden[:, 1] * hidden[:, 2] + 0.5 * hidden[:, 3]
    target = target + 0.1 * draw.standard_normal(num_rows)
    return Table(SYNTHETIC, np.column_stack([hidden, mixed]), target, target_name="target")


def diamonds() -> Table:
    """Prices and properties of 53,940 round-cut diamonds, from the plotnine package (MIT licence).

    The file is located and read without importing plotnine, which would import pandas and statsmodels too. Rows with an
    impossible size (0 mm, or a decimal point lost: 31.8 mm and 58.9 mm) and repeated rows are dropped.
    """
    spec = importlib.util.find_spec("plotnine")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("The diamonds are shipped with plotnine: pip install 'rangeformer[experiments]'.")
    with (Path(spec.origin).parent / "data" / "diamonds.csv").open(newline="") as file:
        rows = list(dict.fromkeys(tuple(row.items()) for row in csv.DictReader(file)))
    records = [dict(row) for row in rows]
    sizes = np.array([[float(row[axis]) for axis in "xyz"] for row in records])
    measured = np.array([[float(row[name]) for name in ("depth", "table")] for row in records])
    grades = np.array([[order.index(row[name]) for name, order in DIAMOND_GRADES.items()] for row in records])
    carat, price = (np.array([float(row[name]) for row in records]) for name in ("carat", "price"))
    keep = ((sizes > 0) & (sizes < 20)).all(axis=1)
    features = np.column_stack([np.log(carat), measured, sizes, grades])[keep]
    return Table("diamonds", features, np.log(price)[keep], target_name="price in US dollars", log_target=True)


def read_csv(path: Path, target: str | None = None) -> Table:
    """A CSV file of numbers with a header; the target is the column `target`, or the last one."""
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if not header or not rows:
        raise ValueError(f"{path.name} must hold a header and rows of numbers.")
    target = header[-1] if target is None else target
    if target not in header:
        raise ValueError(f"`--target` must be a column of {path.name}, one of {header}. Got {target!r}.")
    try:
        values = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path.name} must hold numbers only, the same count in every row: {error}.") from error
    if not np.isfinite(values).all():
        raise ValueError(f"{path.name} holds NaN or infinite values: drop or fill those rows.")
    column = header.index(target)
    return Table(path.stem, np.delete(values, column, axis=1), values[:, column], target_name=target)


def read_npz(path: Path) -> Table:
    """A file with X (rows, d), y (rows,) and perhaps test_mask (rows, splits), whose first column is the split."""
    arrays = np.load(path)
    mask = arrays["test_mask"][:, 0].astype(bool) if "test_mask" in arrays else None
    features, target = arrays["X"].astype(np.float64), arrays["y"].astype(np.float64)
    return Table(path.stem, features, target, target_name="target", test_mask=mask)


def read_hyperparameters(path: Path) -> dict:
    """`noise_std`, `signal_std` and `lengthscales` of a kernel of the standardised features."""
    return json.loads(path.read_text())


def split(table: Table, n: int, num_test: int, seed: int, dtype: torch.dtype, device: torch.device) -> Split:
    """`n` training and `num_test` test rows at random, standardised by all rows that are not test rows."""
    order = np.random.default_rng(seed).permutation(len(table.target))
    if table.test_mask is None:
        # never more than a tenth, so that a small table keeps enough rows to train on
        num_test = min(num_test, len(order) // 10)
        test, train = order[:num_test], order[num_test:]
    else:
        test, train = order[table.test_mask[order]][:num_test], order[~table.test_mask[order]]
    mean, std = table.features[train].mean(axis=0), table.features[train].std(axis=0)
    features = (table.features - mean) / np.where(std > 0, std, 1.0)
    target_mean, target_std = float(table.target[train].mean()), float(table.target[train].std())
    target = (table.target - target_mean) / target_std
    train = train[:n]

    def tensor(values: np.ndarray) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return Split(
        tensor(features[train]),
        tensor(target[train]),
        tensor(features[test]),
        tensor(target[test]),
        target_mean,
        target_std,
    )
