"""What is compared on: matrices of packages, of a folder, and the control."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from experiments.common.shipped_matrices import SHIPPED
from experiments.low_rank import matrices as sketching_matrices


@pytest.fixture
def nothing_shipped(monkeypatch):
    monkeypatch.setattr(sketching_matrices, "SHIPPED", {})


@pytest.mark.parametrize("name", ["brain scan", "meat spectra", "tissue genes", "digits", "ocean floor"])
def test_shipped_matrices_are_finite_and_not_low_rank(name):
    try:
        A = SHIPPED[name]()
    except ImportError as missing:  # of an extra of its own
        pytest.skip(str(missing))
    assert A.ndim == 2
    assert A.dtype == np.float64
    assert np.isfinite(A).all()
    assert np.linalg.matrix_rank(A, tol=0.0) > min(A.shape) // 3


def test_what_is_not_installed_is_left_out_and_said(monkeypatch, capsys):
    def missing():
        raise ImportError("this package is not installed")

    monkeypatch.setattr(sketching_matrices, "SHIPPED", {"gone": missing})
    found = sketching_matrices.cases(smoke=False)
    assert [case.name for case in found] == ["haar"]
    assert "gone is left out: this package is not installed" in capsys.readouterr().out


@pytest.mark.usefixtures("nothing_shipped")
def test_a_folder_of_files(tmp_path):
    A = np.random.default_rng(0).standard_normal((7, 5)) * (np.arange(5) > 1)
    np.savez(tmp_path / "array.npz", A)
    scipy.sparse.save_npz(tmp_path / "compressed.npz", scipy.sparse.csr_array(A))
    scipy.io.mmwrite(tmp_path / "market.mtx", scipy.sparse.csr_array(A), precision=17)
    (tmp_path / "notes.txt").write_text("not a matrix")
    *found, control = sketching_matrices.cases(tmp_path)
    assert control.is_control
    assert [case.name for case in found] == ["array", "compressed", "market"]
    for case in found:
        assert np.array_equal(case.A, A)
        assert np.allclose(case.singular_values, np.linalg.svd(A, compute_uv=False))
        assert case.rank == 1
        assert np.isclose(case.optimum(1), np.linalg.norm(case.singular_values[1:]))


@pytest.mark.usefixtures("nothing_shipped")
@pytest.mark.parametrize(
    ("array", "message"), [(np.ones(5), "must hold matrices"), (np.full((3, 3), np.nan), "must hold finite matrices")]
)
def test_files_that_are_no_matrices(tmp_path, array, message):
    np.savez(tmp_path / "bad.npz", array)
    with pytest.raises(ValueError, match=message):
        sketching_matrices.cases(tmp_path)


def test_the_control_has_the_spectrum_it_says():
    case = sketching_matrices.control(40)
    assert case.A.shape == (80, 40)
    assert np.allclose(np.linalg.svd(case.A, compute_uv=False), case.singular_values)
