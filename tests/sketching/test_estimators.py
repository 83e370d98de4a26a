"""The estimators keep scikit-learn's contract and give what its own do."""

import numpy as np
import pytest
import scipy.sparse
from helpers import normal
from sketch_examples import smooth

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from sklearn.base import clone  # noqa: E402
from sklearn.decomposition import PCA, TruncatedSVD  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

import sketching  # noqa: E402
from sketching.estimators import RangeFormerPCA, RangeFormerSVD  # noqa: E402


@parametrize_with_checks([RangeFormerSVD(), RangeFormerPCA(), RangeFormerPCA(2, whiten=True)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def table() -> np.ndarray:
    return smooth(150, 60).numpy() + 3.0


def sparse() -> scipy.sparse.csr_array:
    A = table() - 3.0
    return scipy.sparse.csr_array(np.where(np.quantile(A, 0.7) < A, A, 0.0))


def assert_alike(ours, theirs, X):
    expected = theirs.fit_transform(X)
    projected = ours.fit_transform(X)
    assert np.allclose(projected, ours.transform(X))
    assert np.allclose(np.abs(ours.components_ @ theirs.components_.T), np.eye(4), atol=1e-3)
    assert np.allclose(np.abs(projected), np.abs(expected), atol=1e-3 * np.abs(expected).max())
    for name in ("explained_variance_", "explained_variance_ratio_", "singular_values_"):
        assert np.allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-3), name
    assert np.allclose(ours.inverse_transform(projected), theirs.inverse_transform(expected), atol=1e-2)


@pytest.mark.parametrize("X", [table(), sparse(), sparse().tocsc()], ids=["dense", "csr", "csc"])
def test_svd_as_scikit_learns(X):
    assert_alike(RangeFormerSVD(4, n_iter=4, random_state=0), TruncatedSVD(4, algorithm="arpack", random_state=0), X)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("X", [table(), sparse()], ids=["dense", "csr"])
def test_pca_as_scikit_learns(X, whiten):
    ours, theirs = RangeFormerPCA(4, n_iter=4, whiten=whiten, random_state=0), PCA(4, whiten=whiten, svd_solver="full")
    if scipy.sparse.issparse(X):
        expected = PCA(4, whiten=whiten, svd_solver="full").fit(X.toarray())
        assert np.allclose(ours.fit(X).singular_values_, expected.singular_values_, rtol=1e-4)
        assert np.allclose(ours.transform(X), ours.transform(X.toarray()))
        assert np.allclose(ours.mean_, expected.mean_)
    else:
        assert_alike(ours, theirs, X)
        assert np.isclose(ours.noise_variance_, theirs.noise_variance_, rtol=1e-2)


def test_pca_of_everything_explains_everything():
    X = normal(30, 8).numpy()
    pca = RangeFormerPCA(random_state=0).fit(X)
    assert pca.n_components_ == 8
    assert np.isclose(pca.explained_variance_ratio_.sum(), 1.0)
    assert np.allclose(pca.inverse_transform(pca.transform(X)), X)


@pytest.mark.parametrize("estimator", [RangeFormerSVD(3, random_state=1), RangeFormerPCA(3, random_state=1)])
def test_dtype_names_pipeline_and_seed(estimator):
    X = table().astype(np.float32)
    first, second = (clone(estimator).fit(X) for _ in range(2))
    assert first.components_.dtype == first.transform(X).dtype == np.float32
    assert np.array_equal(first.components_, second.components_)
    name = type(estimator).__name__.lower()
    assert list(first.get_feature_names_out()) == [f"{name}{i}" for i in range(3)]
    assert make_pipeline(estimator, clone(estimator)).fit_transform(X).shape == (150, 3)


def test_evidence_and_sketches_by_object():
    estimator = RangeFormerSVD(5, sketch=sketching.Gaussian(), n_iter=0, random_state=0).fit(table())
    X = table()
    truth = np.linalg.norm(X - estimator.inverse_transform(estimator.transform(X))) / np.linalg.norm(X)
    assert estimator.n_passes_ == 2
    assert truth / 1.5 < estimator.relative_error_ < 1.5 * truth
    assert not RangeFormerSVD(1, tol=1e-6, random_state=0).fit(X).converged_


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (RangeFormerSVD(0), "`n_components` must be an integer >= 1"),
        (RangeFormerSVD(61), r"`n_components` must be at most min\(n_samples, n_features\) = 60"),
        (RangeFormerPCA(0), "`n_components` must be an integer >= 1 or None"),
        (RangeFormerSVD(n_oversamples=-1), "`n_oversamples` must be an integer >= 0"),
        (RangeFormerSVD(n_iter="many"), "`n_iter` must be 'auto' or an integer >= 0"),
        (RangeFormerSVD(tol=-1.0), "`tol` must be a positive number"),
        (RangeFormerSVD(sketch="best"), "`sketch` must be a Sketch or one of"),
    ],
)
def test_bad_parameters(estimator, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(table())
