"""Matrices of the comparison, with their exact answers: kernels of real tables, prescribed spectra, a folder's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

import rangeformer as rf
from experiments.common import datasets, matrices
from experiments.gp import model as gp
from rangeformer.operators import DenseOperator

HYPERPARAMETERS = Path(__file__).resolve().parent.parent / "hyperparameters"
LEAST_ROWS = 900  # of a folder's matrices: below, everything is over before a clock can tell
NUM_PAIRS = 10  # leading eigenpairs asked for
NUM_COLUMNS = 16  # right-hand sides of the block solve: a target and fifteen probes, as in a training step
KERNEL, SPECTRUM, FOLDER = "kernel", "spectrum", "folder"


@dataclass(frozen=True)
class Case:
    """A symmetric positive definite matrix A = matrix + noise I and its right-hand sides.

    Attributes:
        name: What it is called in tables.
        kind: "kernel", "spectrum" or "folder".
        matrix: `(n, n)`, dense on the device of the comparison, or sparse.
        noise: A known part of the diagonal, None if there is none.
        rhs: `(n, NUM_COLUMNS)`; a solve for one right-hand side takes the first.
    """

    name: str
    kind: str
    matrix: Any
    noise: float | None
    rhs: Tensor

    @property
    def num_rows(self) -> int:
        """Number n of rows."""
        return self.rhs.shape[0]

    def operator(self) -> rf.MatrixOperator:
        """A with cost counts that start at zero."""
        if self.noise is None:
            return rf.as_operator(self.matrix)
        return DenseOperator(self.matrix, torch.full_like(self.rhs[:, 0], self.noise))

    def dense(self, dtype: torch.dtype) -> Tensor:
        """A formed as one tensor, (n, n)."""
        matrix = torch.from_numpy(self.matrix.toarray()) if scipy.sparse.issparse(self.matrix) else self.matrix
        A = matrix.to(self.rhs.device, dtype, copy=True)
        A.diagonal().add_(self.noise or 0.0)
        return A


@dataclass(frozen=True)
class Truth:
    """What is held against: log det A by Cholesky, the leading eigenvalues by ARPACK to rounding, both float64."""

    logdet: float
    eigenvalues: Tensor  # (NUM_PAIRS,) descending


def truth(case: Case) -> Truth:
    """The exact answers of a case."""
    factor = torch.linalg.cholesky(case.dense(torch.float64))
    logdet = 2 * float(factor.diagonal().log().sum())
    del factor
    operator = case.operator()
    product = scipy.sparse.linalg.LinearOperator(
        (case.num_rows, case.num_rows),
        matvec=lambda vector: _precise(operator, vector),
        dtype=np.float64,
    )
    start = np.random.default_rng(0).standard_normal(case.num_rows)
    # single precision products can be no more accurate than they are
    tolerance = 0 if operator.dtype == torch.float64 else 1e-10
    values = scipy.sparse.linalg.eigsh(
        product, NUM_PAIRS, ncv=8 * NUM_PAIRS, v0=start, tol=tolerance, return_eigenvectors=False
    )
    return Truth(logdet, torch.from_numpy(np.sort(values)[::-1].copy()))


def _precise(operator: rf.MatrixOperator, vector: np.ndarray) -> np.ndarray:
    column = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).to(operator.device).unsqueeze(-1)
    return operator.matmul_precise(column).squeeze(-1).cpu().numpy()


def kernel_case(name: str, n: int, data_dir: Path | None, dtype: torch.dtype, device: torch.device, seed: int) -> Case:
    """Matern-3/2 with a length-scale for every feature, at hyperparameters learned or published for the table."""
    table = datasets.load(name, None, None if name in ("diamonds", datasets.SYNTHETIC) else data_dir, None)
    split = datasets.split(table, n, 1, seed, torch.float64, device)
    n = len(split.train_y)
    model = gp.ExactGP(split, "matern32")
    gp.set_hyperparameters(model, HYPERPARAMETERS / f"{name}.json")
    with torch.no_grad():
        matrix = model.covar_module(split.train_x).to_dense().to(dtype)
        matrix = (matrix + matrix.mT) / 2
    noise = model.likelihood.noise.item()
    return Case(f"{name}, n = {n:,}", KERNEL, matrix, noise, _right_hand_sides(split.train_y, seed, dtype))


SPECTRA: dict[str, Callable[[Tensor], Tensor]] = {
    # j = 1, ..., n
    "power law j^-2": lambda j: j**-2 + 1e-6,
    "log-uniform, cond 1e6": lambda j: 10 ** (-6 * (j - 1) / (len(j) - 1)),
    "20 outliers, cond 1e4": lambda j: torch.where(j <= 20, 1e4 * j**-1, 1 + j / len(j)),
}
"""Prescribed eigenvalues, in a Haar random basis: no neighbours, and no column that tells more than another."""


def spectrum_case(name: str, n: int, dtype: torch.dtype, device: torch.device, seed: int) -> Case:
    """Q diag(lambda) Q^T, Q Haar."""
    generator = torch.Generator().manual_seed(seed)
    values = SPECTRA[name](torch.arange(1, n + 1, dtype=torch.float64)).to(device)
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64).to(device)).Q
    matrix = (Q * values) @ Q.mT
    matrix = ((matrix + matrix.mT) / 2).to(dtype)
    target = torch.randn(n, generator=generator, dtype=torch.float64).to(device)
    return Case(f"{name}, n = {n:,}", SPECTRUM, matrix, None, _right_hand_sides(target, seed, dtype))


def folder_cases(folder: Path, dtype: torch.dtype, device: torch.device, seed: int) -> list[Case]:
    """The symmetric positive definite matrices of a folder that are large enough; sparse on a CPU."""
    found = []
    for item in matrices.read(folder):
        if item.num_rows < LEAST_ROWS:
            continue
        generator = torch.Generator().manual_seed(seed)
        target = torch.randn(item.num_rows, generator=generator, dtype=torch.float64).to(device)
        if device.type == "cpu":
            matrix = item.matrix.astype(np.float64 if dtype == torch.float64 else np.float32)
        else:
            matrix = item.dense().to(device, dtype)
        name = f"{item.name}, n = {item.num_rows:,}"
        found.append(Case(name, FOLDER, matrix, None, _right_hand_sides(target, seed, dtype)))
    return found


def specifications(sizes: Sequence[int], data_dir: Path | None, num_spectrum_rows: int) -> list[tuple[str, str, int]]:
    """(kind, name, n) of what is made rather than read.

    The default table at every size, others at the smallest, then spectra.
    """
    shipped = ("diamonds", datasets.SYNTHETIC)
    tables = [path.stem for path in sorted(HYPERPARAMETERS.glob("*.json")) if path.stem not in shipped]
    found = [(KERNEL, datasets.default_name(), n) for n in sizes]
    found += [(KERNEL, name, min(sizes)) for name in tables if data_dir and (data_dir / f"{name}.npz").exists()]
    return [*sorted(found, key=lambda item: item[2]), *((SPECTRUM, name, num_spectrum_rows) for name in SPECTRA)]


def _right_hand_sides(target: Tensor, seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(1000 + seed)
    probes = torch.randn(len(target), NUM_COLUMNS - 1, generator=generator, dtype=torch.float64)
    return torch.cat([target.unsqueeze(-1), probes.to(target)], -1).to(dtype)
