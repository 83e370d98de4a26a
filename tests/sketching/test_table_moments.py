"""Means, variances and ratios of the estimators: those of float64, whatever the type and the size of the data."""

import numpy as np
import pytest
import scipy.sparse
from sketch_examples import smooth

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from sklearn.decomposition import PCA, TruncatedSVD  # noqa: E402

from sketching import moments as module  # noqa: E402
from sketching.estimators import RangeFormerPCA, RangeFormerSVD  # noqa: E402
from sketching.moments import moments_of, variances_along  # noqa: E402

ESTIMATORS = [RangeFormerSVD(2, n_iter=4, random_state=0), RangeFormerPCA(2, n_iter=4, random_state=0)]
IDS = ["svd", "pca"]
HOLDERS = {"dense": lambda X: X, "csr": scipy.sparse.csr_array, "csc": scipy.sparse.csc_array}
# whatever of the variances leaves the range: it is said, and tested below
UNSEEN = pytest.mark.filterwarnings("ignore:`explained_variance_` leaves the range:RuntimeWarning")


def draws(m: int, n: int = 5, *, mean: float = 0.0, dtype=np.float32) -> np.ndarray:
    X = np.random.default_rng(0).standard_normal((m, n)) * np.arange(1, n + 1)
    return (X + mean).astype(dtype)


def rival(estimator):
    if isinstance(estimator, RangeFormerPCA):
        return PCA(2, svd_solver="full")
    return TruncatedSVD(2, algorithm="arpack")


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=IDS)
def test_a_constant_table_has_no_variance(estimator, dtype, holder):
    X = np.full((100_003, 5), 0.1, dtype)
    estimator.fit(HOLDERS[holder](X))
    assert np.array_equal(estimator.explained_variance_ratio_, np.zeros(2, dtype))
    if isinstance(estimator, RangeFormerPCA):
        assert np.array_equal(estimator.mean_, X[0])
        assert estimator.noise_variance_ == 0
        if holder == "dense":
            assert np.array_equal(estimator.singular_values_, np.zeros(2, dtype))


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e5])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=IDS)
def test_large_means_in_float32(estimator, mean):
    X = draws(200_000, mean=mean)
    expected = rival(estimator).fit(X.astype(np.float64))
    estimator.fit(X)
    assert estimator.explained_variance_ratio_.dtype == estimator.explained_variance_.dtype == np.float32
    assert estimator.explained_variance_ratio_.sum() <= 1
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_"):
        # a component in float32 turns by rounding, and a large mean with it
        assert np.allclose(getattr(estimator, name), getattr(expected, name), rtol=1e-3 + 1e-7 * mean), name
    if isinstance(estimator, RangeFormerPCA):
        assert np.array_equal(estimator.mean_, X.mean(axis=0, dtype=np.float64).astype(np.float32))
        assert np.isclose(estimator.noise_variance_, expected.noise_variance_, rtol=1e-3)


@UNSEEN
@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize(
    ("dtype", "factor"),
    [(np.float32, 1e25), (np.float32, 1e-25), (np.float32, 1e36), (np.float64, 1e200), (np.float64, 1e-200)],
)
@pytest.mark.parametrize("estimator", [*ESTIMATORS, RangeFormerPCA(2, n_iter=4, whiten=True, random_state=0)])
def test_sizes_whose_squares_leave_the_range(estimator, dtype, factor, holder):
    X = draws(400, 6, mean=0.5, dtype=np.float64)
    X[np.abs(X) < 1] = 0
    X = (factor * X).astype(dtype)
    expected = rival(estimator).fit(X.astype(np.float64) / factor)
    projected = estimator.fit_transform(HOLDERS[holder](X))
    assert estimator.explained_variance_ratio_.dtype == dtype
    assert np.allclose(estimator.explained_variance_ratio_, expected.explained_variance_ratio_, rtol=1e-4)
    assert np.allclose(estimator.singular_values_ / dtype(factor), expected.singular_values_, rtol=1e-4)
    assert np.allclose(np.abs(estimator.components_ @ expected.components_.T), np.eye(2), atol=1e-3)
    if isinstance(estimator, RangeFormerPCA):
        assert np.allclose(estimator.mean_ / dtype(factor), expected.mean_, rtol=1e-4, atol=1e-5)
    if getattr(estimator, "whiten", False):
        assert np.allclose(projected.astype(np.float64).std(axis=0, ddof=1), 1, rtol=1e-3)
    restored = estimator.inverse_transform(projected) / dtype(factor)
    assert np.allclose(restored, expected.inverse_transform(expected.transform(X / dtype(factor))), atol=1e-2)


@pytest.mark.parametrize("factor", [1e25, 1e-25])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=IDS)
def test_variances_out_of_range_are_said(estimator, factor):
    X = (factor * draws(300)).astype(np.float32)
    with pytest.warns(RuntimeWarning, match="`explained_variance_` leaves the range of float32"):
        estimator.fit(X)
    assert np.isinf(estimator.explained_variance_).all() or not estimator.explained_variance_.any()


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_block_by_block(monkeypatch, holder, dtype):
    X = smooth(90, 30).numpy().astype(dtype) + dtype(100)
    X[:, 3] = 0
    X[2] = 0
    monkeypatch.setattr(module, "_BLOCK_ENTRIES", 7 * 30)
    held, wide = HOLDERS[holder](X), X.astype(np.float64)
    found = moments_of(held)
    assert found.exponent == 0
    assert found.mean.dtype == found.variance.dtype == np.float64
    assert np.allclose(found.mean, wide.mean(axis=0), rtol=1e-14)
    assert np.allclose(found.variance, wide.var(axis=0), rtol=1e-12, atol=0)
    directions = np.linalg.qr(draws(30, 4))[0].T
    expected = (wide @ directions.T.astype(np.float64)).var(axis=0)
    assert np.allclose(variances_along(held, found, directions), expected, rtol=1e-10)


def test_entries_that_are_stored_twice_are_summed():
    X = scipy.sparse.csr_array((np.ones(3), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    assert np.allclose(moments_of(X).mean, [1, 0.5])
    assert np.allclose(moments_of(X).variance, [1, 0.25])
    assert X.nnz == 3


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=IDS)
def test_masked_tables_are_refused(estimator):
    X = draws(30)
    masked = np.ma.MaskedArray(X, X > 2)
    with pytest.raises(ValueError, match="`X` must not be masked. Got a masked array; fill it first"):
        estimator.fit(masked)
    estimator.fit(X)
    for call in (estimator.transform, estimator.inverse_transform):
        with pytest.raises(ValueError, match="`X` must not be masked"):
            call(np.ma.MaskedArray(X[:, :2], False))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=IDS)
def test_without_a_tolerance_converged_promises_nothing_and_the_docs_say_so(estimator):
    assert estimator.fit(draws(30)).converged_
    assert "True if `tol` is None, which" in type(estimator).__doc__
    assert "promises nothing" in type(estimator).__doc__
