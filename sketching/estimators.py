"""scikit-learn estimators: drop-ins for `TruncatedSVD` and `PCA` that need no `n_iter`, and know their error.

scikit-learn is an extra (`pip install rangeformer[sketching]`), so these are imported from here and not from
`sketching`.
"""

from typing import Any

import numpy as np
import scipy.sparse
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.extmath import svd_flip
from sklearn.utils.sparsefuncs import mean_variance_axis
from sklearn.utils.validation import check_is_fitted, validate_data

from rangeformer import MatrixOperator, as_operator
from rangeformer.validation import check_count, check_tolerance
from sketching.algorithms.randomized_svd import AUTO, randomized_svd
from sketching.centred_operator import CentredOperator
from sketching.results import LowRank
from sketching.sketches import Sketch

_SPARSE = ("csr", "csc")


class _Projection(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What both share: how they look at X, and the evidence they keep."""

    n_components: Any
    n_oversamples: int
    n_iter: int | str
    sketch: str | Sketch
    max_rows: int | None
    tol: float | None
    random_state: Any
    components_: np.ndarray
    _all_by_default: bool

    def fit(self, X: Any, y: Any = None):
        """Find the components of X.

        Args:
            X: `(n_samples, n_features)` array or sparse matrix.
            y: Ignored.

        Returns:
            The estimator.
        """
        self.fit_transform(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Find the components of X and project it on them.

        Args:
            X: `(n_samples, n_features)` array or sparse matrix.
            y: Ignored.

        Returns:
            `(n_samples, n_components)`, what `transform(X)` gives.
        """
        raise NotImplementedError

    def _check_parameters(self) -> None:
        """What `randomized_svd` would refuse under the names that it has there."""
        check_count("n_components", self.n_components, least=1, optional=self._all_by_default)
        check_count("n_oversamples", self.n_oversamples, least=0)
        if isinstance(self.n_iter, str):
            if self.n_iter != AUTO:
                raise ValueError(f"`n_iter` must be 'auto' or an integer >= 0. Got {self.n_iter!r}.")
        else:
            check_count("n_iter", self.n_iter, least=0)
        if self.tol is not None:
            check_tolerance("tol", self.tol)

    def _checked(self, X: Any, *, reset: bool) -> Any:
        return validate_data(self, X, accept_sparse=_SPARSE, dtype=[np.float64, np.float32], reset=reset)

    def _decompose(self, A: MatrixOperator, n_components: int) -> tuple[np.ndarray, np.ndarray]:
        """Singular values and components, signs by the components; keeps the evidence."""
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        result: LowRank = randomized_svd(
            A,
            n_components,
            num_oversamples=int(self.n_oversamples),
            num_power_iterations=self.n_iter if isinstance(self.n_iter, str) else int(self.n_iter),
            sketch=self.sketch,
            max_rows=None if self.max_rows is None else int(self.max_rows),
            rtol=None if self.tol is None else float(self.tol),
            generator=torch.Generator().manual_seed(seed),
        )
        _, components = svd_flip(result.U.numpy(), result.Vh.numpy(), u_based_decision=False)
        self.relative_error_ = result.relative_error
        self.n_passes_ = result.num_passes
        self.converged_ = result.converged
        return result.S.numpy(), components

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        assert tags.transformer_tags is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class RangeFormerSVD(_Projection):
    """Truncated SVD without centring, for `sklearn.decomposition.TruncatedSVD`.

    Args:
        n_components: Components wanted, at most min(n_samples, n_features).
        n_oversamples: Extra sketch columns.
        n_iter: Power iterations, or "auto": as many as the estimated error says pay.
        sketch: As for `sketching.randomized_svd`.
        max_rows: Rows that the sketch may read beforehand. Default: as for `sketching.randomized_svd`.
        tol: Relative Frobenius error to reach, None for as good as "auto" finds worth it.
        random_state: Seed.

    Attributes:
        components_: `(n_components, n_features)` right singular vectors; of each the largest entry is positive.
        explained_variance_: `(n_components,)` variances of the projected training data.
        explained_variance_ratio_: The same over the total variance.
        singular_values_: `(n_components,)`.
        relative_error_: Estimate of the relative Frobenius error of the approximation.
        n_passes_: Times X was read as a whole to find it; projecting X is one more.
        converged_: Whether `tol` was met.

    Example:
        >>> import numpy as np
        >>> from sketching.estimators import RangeFormerSVD
        >>> X = np.outer(np.arange(1.0, 9.0), np.ones(5)) + np.eye(8, 5)
        >>> RangeFormerSVD(2, random_state=0).fit_transform(X).shape
        (8, 2)
    """

    _all_by_default = False

    def __init__(
        self,
        n_components: int = 2,
        *,
        n_oversamples: int = 10,
        n_iter: int | str = "auto",
        sketch: str | Sketch = "rangeformer",
        max_rows: int | None = None,
        tol: float | None = None,
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.n_oversamples = n_oversamples
        self.n_iter = n_iter
        self.sketch = sketch
        self.max_rows = max_rows
        self.tol = tol
        self.random_state = random_state

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """See `_Projection.fit_transform`."""
        self._check_parameters()
        X = self._checked(X, reset=True)
        _check_components(self.n_components, X.shape)
        self.singular_values_, self.components_ = self._decompose(as_operator(X), int(self.n_components))
        # not U S: the factors of an approximation of X are not the projection of X
        projected = X @ self.components_.T
        self.explained_variance_ = projected.var(axis=0)
        variances = _sparse_moments(X)[1] if scipy.sparse.issparse(X) else X.var(axis=0)
        self.explained_variance_ratio_ = _ratio(self.explained_variance_, variances.sum())
        return projected

    def transform(self, X: Any) -> np.ndarray:
        """Project X on the components.

        Args:
            X: `(n_samples, n_features)` array or sparse matrix.

        Returns:
            `(n_samples, n_components)`.
        """
        check_is_fitted(self)
        return self._checked(X, reset=False) @ self.components_.T

    def inverse_transform(self, X: Any) -> np.ndarray:
        """The rows that the projections stand for.

        Args:
            X: `(n_samples, n_components)`.

        Returns:
            `(n_samples, n_features)`.
        """
        check_is_fitted(self)
        return np.asarray(X) @ self.components_


class RangeFormerPCA(_Projection):
    """Principal components, for `sklearn.decomposition.PCA`; sparse X is centred implicitly and stays sparse.

    Args:
        n_components: Components wanted. Default: min(n_samples, n_features); a share of the variance is not taken, use
            `tol`.
        whiten: Whether projections are scaled to variance one.
        n_oversamples: Extra sketch columns.
        n_iter: Power iterations, or "auto": as many as the estimated error says pay.
        sketch: As for `sketching.randomized_svd`.
        max_rows: Rows that the sketch may read beforehand. Default: as for `sketching.randomized_svd`.
        tol: Relative Frobenius error of the centred X to reach, None for as good as "auto" finds worth it.
        random_state: Seed.

    Attributes:
        components_: `(n_components, n_features)` principal axes; of each the largest entry is positive.
        explained_variance_: `(n_components,)`, with n_samples - 1 degrees of freedom.
        explained_variance_ratio_: The same over the total variance.
        singular_values_: `(n_components,)` of the centred X.
        mean_: `(n_features,)`.
        n_components_: Number of components.
        n_samples_: Rows of the training data.
        noise_variance_: Mean variance of the directions left out.
        relative_error_: Estimate of the relative Frobenius error of the approximation of the centred X.
        n_passes_: Times X was read as a whole to find it; the mean and the projection are two more.
        converged_: Whether `tol` was met.

    Example:
        >>> import numpy as np
        >>> from sketching.estimators import RangeFormerPCA
        >>> X = np.outer(np.arange(1.0, 9.0), np.ones(5)) + np.eye(8, 5)
        >>> RangeFormerPCA(2, random_state=0).fit_transform(X).shape
        (8, 2)
    """

    _all_by_default = True

    def __init__(
        self,
        n_components: int | None = None,
        *,
        whiten: bool = False,
        n_oversamples: int = 10,
        n_iter: int | str = "auto",
        sketch: str | Sketch = "rangeformer",
        max_rows: int | None = None,
        tol: float | None = None,
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.whiten = whiten
        self.n_oversamples = n_oversamples
        self.n_iter = n_iter
        self.sketch = sketch
        self.max_rows = max_rows
        self.tol = tol
        self.random_state = random_state

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """See `_Projection.fit_transform`."""
        self._check_parameters()
        X = self._checked(X, reset=True)
        m, n = X.shape
        if m < 2:
            raise ValueError(f"`X` must have at least 2 rows to have a variance. Got n_samples = {m}.")
        count = min(m, n) if self.n_components is None else int(self.n_components)
        _check_components(count, X.shape)
        if scipy.sparse.issparse(X):
            self.mean_, variances = _sparse_moments(X)
            A: MatrixOperator = CentredOperator(as_operator(X), torch.from_numpy(self.mean_))
        else:
            self.mean_ = X.mean(axis=0)
            centred = X - self.mean_
            variances, A = centred.var(axis=0), as_operator(centred)
        self.singular_values_, self.components_ = self._decompose(A, count)
        self.n_components_, self.n_samples_ = count, m
        self.explained_variance_ = self.singular_values_**2 / (m - 1)
        total = float(np.sum(variances, dtype=np.float64)) * m / (m - 1)
        self.explained_variance_ratio_ = _ratio(self.explained_variance_, total)
        left_out = max(total - float(self.explained_variance_.sum(dtype=np.float64)), 0.0)
        self.noise_variance_ = left_out / (min(m, n) - count) if count < min(m, n) else 0.0
        return self._project(X)

    def transform(self, X: Any) -> np.ndarray:
        """Project the centred X on the components.

        Args:
            X: `(n_samples, n_features)` array or sparse matrix.

        Returns:
            `(n_samples, n_components)`.
        """
        check_is_fitted(self)
        return self._project(self._checked(X, reset=False))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """The rows that the projections stand for.

        Args:
            X: `(n_samples, n_components)`.

        Returns:
            `(n_samples, n_features)`.
        """
        check_is_fitted(self)
        return (np.asarray(X) * self._scale() if self.whiten else np.asarray(X)) @ self.components_ + self.mean_

    def _project(self, X: Any) -> np.ndarray:
        if scipy.sparse.issparse(X):
            projected = X @ self.components_.T - self.mean_ @ self.components_.T
        else:
            projected = (X - self.mean_) @ self.components_.T
        return projected / self._scale() if self.whiten else projected

    def _scale(self) -> np.ndarray:
        """Standard deviations, directions without any not blown up."""
        deviation = np.sqrt(self.explained_variance_)
        smallest = np.finfo(deviation.dtype).eps * max(deviation.max(), np.finfo(deviation.dtype).tiny)
        return np.maximum(deviation, smallest)


def _check_components(n_components: int, shape: tuple[int, int]) -> None:
    if n_components > min(shape):
        raise ValueError(
            f"`n_components` must be at most min(n_samples, n_features) = {min(shape)}. Got {n_components} with "
            f"n_samples = {shape[0]}, n_features = {shape[1]}."
        )


def _sparse_moments(X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances of the columns, in X's dtype."""
    moments: Any = mean_variance_axis(X, axis=0)
    return moments[0].astype(X.dtype), moments[1].astype(X.dtype)


def _ratio(explained: np.ndarray, total: Any) -> np.ndarray:
    """Shares of the total, zero if there is none."""
    return explained / total if total > 0 else np.zeros_like(explained)
