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
from sklearn.utils.validation import check_is_fitted, validate_data

from rangeformer import MatrixOperator, as_operator
from rangeformer.validation import check_count, check_tolerance
from sketching.algorithms.randomized_svd import AUTO, randomized_svd
from sketching.arguments import refuse_masked
from sketching.centred_operator import CentredOperator
from sketching.moments import centred_table, moments_of, scaled_table, variances_along, variances_of
from sketching.results import LowRank
from sketching.scaled_operator import restored
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
        refuse_masked("X", X)
        return validate_data(self, X, accept_sparse=_SPARSE, dtype=[np.float64, np.float32], reset=reset)

    def _decompose(self, A: MatrixOperator, n_components: int, exponent: int) -> np.ndarray:
        """Singular values of 2^-exponent X in float64; keeps those of X, the components and the evidence."""
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
        _, self.components_ = svd_flip(result.U.numpy(), result.Vh.numpy(), u_based_decision=False)
        self.relative_error_ = result.relative_error
        self.n_passes_ = result.num_passes
        self.converged_ = result.converged
        self.singular_values_ = restored(result.S, exponent, result.S.dtype, "Singular values").numpy()
        return result.S.numpy().astype(np.float64)

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
        explained_variance_: `(n_components,)` variances of the projected training data; infinite or zero, with a
            warning, where X's dtype does not hold them.
        explained_variance_ratio_: The same over the total variance.
        singular_values_: `(n_components,)`.
        relative_error_: Estimate of the relative Frobenius error of the approximation.
        n_passes_: Times X was read as a whole to find it; projecting X is one more.
        converged_: Whether `tol` was met, with a margin for the estimate's own error. True if `tol` is None, which
            promises nothing: `relative_error_` says how good the approximation is, and leading singular values may be
            10 or 20 per cent off where they hardly decay.

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
        moments = moments_of(X)
        self._decompose(as_operator(scaled_table(X, moments.exponent)), int(self.n_components), moments.exponent)
        # not S: the factors of an approximation of X are not the projection of X
        explained = variances_along(X, moments, self.components_)
        self.explained_variance_ = variances_of(explained, moments.exponent, X.dtype)
        self.explained_variance_ratio_ = _ratio(explained, moments.variance.sum(), X.dtype)
        return X @ self.components_.T

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
        refuse_masked("X", X)
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
        explained_variance_: `(n_components,)`, with n_samples - 1 degrees of freedom; infinite or zero, with a warning,
            where X's dtype does not hold them.
        explained_variance_ratio_: The same over the total variance.
        singular_values_: `(n_components,)` of the centred X.
        mean_: `(n_features,)`.
        n_components_: Number of components.
        n_samples_: Rows of the training data.
        noise_variance_: Mean variance of the directions left out.
        relative_error_: Estimate of the relative Frobenius error of the approximation of the centred X.
        n_passes_: Times X was read as a whole to find it; the mean and the projection are two more.
        converged_: Whether `tol` was met, with a margin for the estimate's own error. True if `tol` is None, which
            promises nothing: `relative_error_` says how good the approximation is, and leading singular values may be
            10 or 20 per cent off where they hardly decay.

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
        moments = moments_of(X)
        exponent = moments.exponent
        self.mean_ = np.ldexp(moments.mean, exponent).astype(X.dtype)
        if scipy.sparse.issparse(X):
            mean = torch.from_numpy(moments.mean.astype(X.dtype))
            A: MatrixOperator = CentredOperator(as_operator(scaled_table(X, exponent)), mean)
        else:
            A = as_operator(centred_table(X, moments))
        explained = self._decompose(A, count, exponent) ** 2 / (m - 1)
        self.n_components_, self.n_samples_ = count, m
        self.explained_variance_ = variances_of(explained, exponent, X.dtype)
        total = float(moments.variance.sum()) * m / (m - 1)
        self.explained_variance_ratio_ = _ratio(explained, total, X.dtype)
        left_out = max(total - float(explained.sum()), 0.0) / max(min(m, n) - count, 1)
        with np.errstate(over="ignore", under="ignore"):
            self.noise_variance_ = float(np.ldexp(left_out, 2 * exponent)) if count < min(m, n) else 0.0
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
        refuse_masked("X", X)
        return (np.asarray(X) * self._scale() if self.whiten else np.asarray(X)) @ self.components_ + self.mean_

    def _project(self, X: Any) -> np.ndarray:
        if scipy.sparse.issparse(X):
            projected = X @ self.components_.T - self.mean_ @ self.components_.T
        else:
            projected = (X - self.mean_) @ self.components_.T
        return projected / self._scale() if self.whiten else projected

    def _scale(self) -> np.ndarray:
        """Standard deviations, directions without any not blown up."""
        # not of variances: squares may have left the range
        deviation = self.singular_values_ / np.sqrt(self.n_samples_ - 1).astype(self.singular_values_.dtype)
        smallest = np.finfo(deviation.dtype).eps * max(deviation.max(), np.finfo(deviation.dtype).tiny)
        return np.maximum(deviation, smallest)


def _check_components(n_components: int, shape: tuple[int, int]) -> None:
    if n_components > min(shape):
        raise ValueError(
            f"`n_components` must be at most min(n_samples, n_features) = {min(shape)}. Got {n_components} with "
            f"n_samples = {shape[0]}, n_features = {shape[1]}."
        )


def _ratio(explained: np.ndarray, total: float, dtype: Any) -> np.ndarray:
    """Shares of the total, zero if there is none."""
    return (explained / total if total > 0 else np.zeros_like(explained)).astype(dtype)
