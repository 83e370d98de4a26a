"""Means and variances of the columns of a table, in float64 whatever the table's type, and safe from overflow.

A sum of 100,000 float32 numbers in float32 has no correct digit left where the mean exceeds the deviation; and squares
of 1e25 leave its range. Blocks of rows are converted, so that no second table is made.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch

from rangeformer.deprecation import callers_level
from sketching.scaled_operator import exponent_for

_BLOCK_ENTRIES = 1 << 16  # half a MiB in float64, which stays in the cache


@dataclass(frozen=True)
class Moments:
    """Of the columns of 2^-exponent X.

    Attributes:
        exponent: Zero unless squares of X would leave the range.
        mean: `(n,)` float64.
        variance: `(n,)` float64, over the number of rows.
    """

    exponent: int
    mean: np.ndarray
    variance: np.ndarray


def moments_of(X: Any) -> Moments:
    """Means and variances of the columns; those of a constant column are that constant and zero, without rounding.

    Args:
        X: `(m, n)` float32 or float64, array or sparse matrix in compressed rows or columns.
    """
    if scipy.sparse.issparse(X):
        return _sparse_moments(X)
    m, n = X.shape
    exponent = exponent_for(max(float(X.max()), -float(X.min())), _torch_dtype(X))
    # sums of differences to a row are exact where a column is constant
    first = np.ldexp(X[0].astype(np.float64), -exponent)
    total = np.zeros(n)
    for _, block in _blocks(X, exponent):
        total += (block - first).sum(axis=0)
    mean = first + total / m
    squares = np.zeros(n)
    for _, block in _blocks(X, exponent):
        squares += _sums_of_squares(block - mean)
    return Moments(exponent, mean, squares / m)


def variances_along(X: Any, moments: Moments, components: np.ndarray) -> np.ndarray:
    """Variances of the rows of 2^-exponent X along some directions, float64.

    Args:
        X: `(m, n)`.
        moments: Of X.
        components: `(k, n)` directions.
    """
    directions = components.T.astype(np.float64)
    if scipy.sparse.issparse(X):
        projected = scaled_table(X.astype(np.float64), moments.exponent) @ directions
        return projected.var(axis=0)
    squares = np.zeros(len(components))
    for _, block in _blocks(X, moments.exponent):
        squares += _sums_of_squares((block - moments.mean) @ directions)
    return squares / len(X)


def centred_table(X: np.ndarray, moments: Moments) -> np.ndarray:
    """2^-exponent X minus its means, in X's type.

    Args:
        X: `(m, n)` array.
        moments: Of X.
    """
    centred = np.empty_like(X)
    for part, block in _blocks(X, moments.exponent):
        centred[part] = block - moments.mean
    return centred


def scaled_table(X: Any, exponent: int) -> Any:
    """2^-exponent X; X itself where the exponent is zero.

    Args:
        X: `(m, n)` array or sparse matrix.
        exponent: Of the scaling.
    """
    if exponent == 0:
        return X
    if not scipy.sparse.issparse(X):
        return np.ldexp(X, -exponent)
    result: Any = X.copy()
    result.data = np.ldexp(result.data, -exponent)
    return result


def variances_of(values: np.ndarray, exponent: int, dtype: Any) -> np.ndarray:
    """Variances of X in its type from those of 2^-exponent X, with a warning where the type does not hold them.

    Args:
        values: `(k,)` float64, not negative.
        exponent: Of the scaling.
        dtype: Of X.
    """
    with np.errstate(over="ignore", under="ignore"):
        result = np.ldexp(values, 2 * exponent).astype(dtype)
    if not np.isfinite(result).all() or (values.max(initial=0) > 0 and not result.any()):
        warnings.warn(
            f"`explained_variance_` leaves the range of {np.dtype(dtype)}: it is infinite, or zero, where X has a "
            "variance. `explained_variance_ratio_` and `singular_values_` are right; for variances scale X.",
            RuntimeWarning,
            stacklevel=callers_level(),
        )
    return result


def _sparse_moments(X: Any) -> Moments:
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    m, n = X.shape
    peak = float(np.abs(X.data).max(initial=0))
    exponent = exponent_for(peak, _torch_dtype(X))
    data = np.ldexp(X.data.astype(np.float64), -exponent)
    column = X.indices if X.format == "csr" else np.repeat(np.arange(n), np.diff(X.indptr))

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(column, values, minlength=n)

    num_zeros = m - np.bincount(column, minlength=n)
    mean = sums(data) / m
    # once more, so that a constant column has its constant as mean
    mean += (sums(data - mean[column]) - num_zeros * mean) / m
    return Moments(exponent, mean, (sums(np.square(data - mean[column])) + num_zeros * np.square(mean)) / m)


def _blocks(X: np.ndarray, exponent: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of 2^-exponent X in float64, some at a time."""
    m, n = X.shape
    step = max(1, _BLOCK_ENTRIES // n)
    for start in range(0, m, step):
        part = slice(start, min(start + step, m))
        block = X[part].astype(np.float64, copy=False)
        yield part, np.ldexp(block, -exponent) if exponent else block


def _sums_of_squares(block: np.ndarray) -> np.ndarray:
    """Of every column, without a table of squares."""
    return np.einsum("ij,ij->j", block, block)


def _torch_dtype(X: Any) -> torch.dtype:
    return torch.float32 if X.dtype == np.float32 else torch.float64
