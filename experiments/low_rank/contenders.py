"""Everybody's low-rank approximation behind one call, with what each read of the matrix."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from sklearn.utils.extmath import randomized_svd as scikit_learn_svd

import sketching

FEW_ROWS = 24
FEW = f"{FEW_ROWS} rows"
SKETCHES = ("rangeformer", "rangeformer-untrained", "sampled-rows", "gaussian", "sparse-sign")


@dataclass(frozen=True)
class Answer:
    """A ~ U diag(S) Vh and its price.

    Attributes:
        factors: U, S, Vh as arrays.
        num_passes: Times A was read as a whole.
        entries: Entries read beside that.
        estimate: Of the relative Frobenius error, where the method gives one.
    """

    factors: tuple[np.ndarray, np.ndarray, np.ndarray]
    num_passes: int
    entries: int = 0
    estimate: float | None = None


Method = Callable[[np.ndarray, int, int], Answer]
"""`(A, rank, seed)`."""


@dataclass(frozen=True)
class Contender:
    """A method.

    Attributes:
        name: In tables.
        family: What shares a line in pictures.
        run: The method.
        setting: `FEW`, "default", "auto" or how many power iterations: what is equal among those compared.
    """

    name: str
    family: str
    run: Method
    setting: str


def contenders() -> list[Contender]:
    """All of them."""
    found = []
    for sketch in SKETCHES:
        looks = sketch not in ("gaussian", "sparse-sign")
        if looks:
            few = ours(sketch, 0, max_rows=FEW_ROWS)
            found.append(Contender(f"{sketch}, {FEW_ROWS} rows", sketch, few, "24 rows"))
        for count in (0, 1, 2):
            label = named(sketch, str(count))
            found.append(Contender(label, sketch, ours(sketch, count), str(count)))
        if sketch in ("rangeformer", "gaussian"):
            found.append(Contender(f"{sketch}, auto", sketch, ours(sketch, "auto"), "auto"))
    found += [
        Contender("block Krylov, b = 5", "block Krylov", block_krylov("gaussian", 5), "default"),
        Contender("block Krylov, rangeformer", "block Krylov", block_krylov("rangeformer"), "default"),
        Contender("scikit-learn randomized_svd", "scikit-learn", _scikit_learn("auto"), "default"),
        Contender("scikit-learn, 0 power iterations", "scikit-learn", _scikit_learn(0), "0"),
        Contender("scikit-learn, 1 power iteration", "scikit-learn", _scikit_learn(1), "1"),
        Contender("torch.svd_lowrank", "torch", _torch(2, 0), "default"),
        Contender("torch.svd_lowrank, q = rank + 10, niter = 0", "torch", _torch(0, 10), "0"),
        Contender("scipy svds", "scipy", _svds, "default"),
    ]
    if find_spec("dask") is not None:
        found += [
            Contender("dask svd_compressed", "dask", _dask(0), "default"),
            Contender("dask svd_compressed, 1 power iteration", "dask", _dask(1), "1"),
        ]
    return found


def named(family: str, setting: str) -> str:
    """What a contender of ours is called.

    Args:
        family: A sketch.
        setting: `FEW`, or how many power iterations.
    """
    if setting == FEW:
        return f"{family}, {FEW}"
    return {"0": family, "1": f"{family}, 1 power iteration"}.get(setting, f"{family}, {setting} power iterations")


def error(A: np.ndarray, factors: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """Frobenius error of an approximation, computed."""
    U, S, Vh = factors
    return float(np.linalg.norm(A - (U * S) @ Vh))


def ours(sketch: str, num_power_iterations: int | str, max_rows: int | None = None) -> Method:
    """`sketching.randomized_svd`, a smaller matrix being asked for fewer rows.

    Args:
        sketch: By name.
        num_power_iterations: Or "auto".
        max_rows: As the call's.
    """

    def run(A: np.ndarray, rank: int, seed: int) -> Answer:
        rows = None if max_rows is None else min(max_rows, max(1, A.shape[0] // 2))
        result = sketching.randomized_svd(
            A,
            rank,
            sketch=sketch,
            num_power_iterations=num_power_iterations,
            max_rows=rows,
            generator=torch.Generator().manual_seed(seed),
        )
        return _answer(result)

    return run


def block_krylov(
    sketch: str, block_size: int | None = None, num_iterations: int | None = None, max_rows: int | None = None
) -> Method:
    """`sketching.block_krylov_svd`.

    Args:
        sketch: By name.
        block_size: As the call's.
        num_iterations: As the call's.
        max_rows: As the call's.
    """

    def run(A: np.ndarray, rank: int, seed: int) -> Answer:
        result = sketching.block_krylov_svd(
            A,
            rank,
            block_size=block_size,
            num_iterations=num_iterations,
            sketch=sketch,
            max_rows=max_rows,
            generator=torch.Generator().manual_seed(seed),
        )
        return _answer(result)

    return run


def _answer(result: sketching.LowRank) -> Answer:
    factors = (result.U.numpy(), result.S.numpy(), result.Vh.numpy())
    return Answer(factors, result.num_passes, result.num_entries, result.relative_error)


def _scikit_learn(num_iterations: int | str) -> Method:
    def run(A: np.ndarray, rank: int, seed: int) -> Answer:
        count = num_iterations
        if isinstance(count, str):  # its documented rule
            count = 7 if rank < 0.1 * min(A.shape) else 4
        factors = scikit_learn_svd(A, rank, n_iter=num_iterations, random_state=seed)
        return Answer(factors, 2 + 2 * count)

    return run


def _torch(num_iterations: int, num_oversamples: int) -> Method:
    def run(A: np.ndarray, rank: int, seed: int) -> Answer:
        with torch.random.fork_rng(devices=[]):  # it draws from the global generator and takes no other
            torch.manual_seed(seed)
            size = min(rank + num_oversamples, *A.shape)
            U, S, V = torch.svd_lowrank(torch.from_numpy(A), q=size, niter=num_iterations)
        return Answer((U[:, :rank].numpy(), S[:rank].numpy(), V[:, :rank].mT.numpy()), 2 + 2 * num_iterations)

    return run


def _svds(A: np.ndarray, rank: int, seed: int) -> Answer:
    count = 0

    def multiply(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return matrix @ vectors

    operator: Any = scipy.sparse.linalg.LinearOperator(
        A.shape,
        matvec=lambda x: multiply(A, x),
        rmatvec=lambda x: multiply(A.T, x),
        matmat=lambda x: multiply(A, x),
        rmatmat=lambda x: multiply(A.T, x),
        dtype=A.dtype,
    )
    U, S, Vh = scipy.sparse.linalg.svds(operator, k=rank, rng=np.random.default_rng(seed))
    return Answer((U, S, Vh), count)


def _dask(num_iterations: int) -> Method:
    def run(A: np.ndarray, rank: int, seed: int) -> Answer:
        import dask.array as da
        from dask.base import compute
        from dask.config import set as configured

        array = da.from_array(A, chunks=(-(-A.shape[0] // 4), A.shape[1]))
        with warnings.catch_warnings(), configured(scheduler="synchronous"):
            warnings.simplefilter("ignore")  # about chunks, which on one machine are of no consequence
            factors = da.linalg.svd_compressed(array, rank, n_power_iter=num_iterations, seed=seed)
            U, S, Vh = compute(*factors)
        return Answer((U, S, Vh), 2 + 2 * num_iterations)

    return run
