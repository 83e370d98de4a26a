import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch

from experiments.common import matrices
from experiments.ood.families import FAMILIES, REAL, SHIFT, SQUARED, Source, draw_family
from tests.helpers import conditioned, seeded

DISTRIBUTIONS = Source()
SIZES = [1, 2, 7, 20]


def drawn(family: str, n: int, seed: int = 0, source: Source = DISTRIBUTIONS) -> torch.Tensor:
    return draw_family(family, n, seeded(seed), source)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("n", SIZES)
def test_every_family_at_any_size(family, n):
    A = drawn(family, n)
    assert A.shape == (n, n)
    assert A.dtype == torch.float64
    assert torch.equal(A, A.mT)
    assert torch.equal(A, drawn(family, n))
    smallest = float(torch.linalg.eigvalsh(A)[0])
    assert smallest == 0 if family == "zero" else smallest > 0


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("identity", "zero")])
def test_another_seed_is_another_matrix(family):
    assert not torch.equal(drawn(family, 12), drawn(family, 12, seed=1))


def test_identity_and_zero():
    assert torch.equal(drawn("identity", 5), torch.eye(5, dtype=torch.float64))
    assert (drawn("zero", 5) == 0).all()


def test_diagonal_is_squared_and_shifted():
    A = drawn("diagonal", 8)
    entries = FAMILIES["diagonal"](8, seeded(0), DISTRIBUTIONS).diagonal()
    torch.testing.assert_close(A, torch.diag(entries**2 + SHIFT))


def test_low_rank_has_the_root_of_n_as_rank():
    eigenvalues = torch.linalg.eigvalsh(drawn("low rank", 49))
    torch.testing.assert_close(eigenvalues[:42], torch.full((42,), SHIFT, dtype=torch.float64), rtol=1e-6, atol=0)
    assert float(eigenvalues[42]) > 100 * SHIFT


def test_spectral_ratio_is_the_root_of_two():
    eigenvalues = torch.linalg.eigvalsh(drawn("spectral ratio", 20))
    assert float(eigenvalues[-1] / eigenvalues[-2]) == pytest.approx(2**0.5)
    assert float(eigenvalues[0]) > 0.009


def test_toeplitz_has_constant_diagonals_of_positive_numbers():
    T = FAMILIES["Toeplitz"](9, seeded(0), DISTRIBUTIONS)
    assert all(torch.equal(T.diagonal(k), T.diagonal(k)[:1].expand(9 - k)) for k in range(9))
    assert (T > 0).all()


@pytest.mark.parametrize(("n", "p"), [(20, 4), (50, 5), (1000, 25)])
def test_kronecker_blocks_are_multiples_of_each_other(n, p):
    A = FAMILIES["Kronecker"](n, seeded(0), DISTRIBUTIONS)
    q = n // p
    blocks = A.reshape(p, q, p, q).transpose(1, 2).reshape(p * p, q * q)
    assert torch.linalg.matrix_rank(blocks) == 1
    torch.testing.assert_close(A, A.mT)


def test_gaussian_is_the_gram_matrix_of_gaussian_entries():
    G = FAMILIES["Gaussian"](50, seeded(0), DISTRIBUTIONS)
    assert abs(float(G.mean())) < 0.1
    assert abs(float(G.std()) - 1) < 0.1
    torch.testing.assert_close(drawn("Gaussian", 50), G @ G.mT + SHIFT * torch.eye(50, dtype=torch.float64))


@pytest.fixture
def folder(tmp_path):
    """One large and one small definite matrix, an indefinite one, a rectangular one."""
    large, small = (conditioned(n, 10.0, seed=n).numpy() for n in (40, 10))
    scipy.sparse.save_npz(tmp_path / "large.npz", scipy.sparse.csr_array(5 * large))
    scipy.io.mmwrite(tmp_path / "small.mtx", scipy.sparse.coo_array(small))
    scipy.sparse.save_npz(
        tmp_path / "indefinite.npz", scipy.sparse.csr_array(np.diag([1.0, 1.0]) + 2 * np.eye(2)[::-1])
    )
    scipy.sparse.save_npz(tmp_path / "wide.npz", scipy.sparse.csr_array(np.ones((2, 3))))
    (tmp_path / "notes.txt").write_text("not a matrix")
    return tmp_path


def test_a_folder_gives_its_definite_matrices_by_size(folder):
    found = matrices.read(folder)
    assert [(item.name, item.num_rows) for item in found] == [("small", 10), ("large", 40)]
    torch.testing.assert_close(found[1].dense(), 5 * conditioned(40, 10.0, seed=40))


def test_a_folder_without_matrices_says_so(tmp_path):
    with pytest.raises(ValueError, match="must hold symmetric positive definite matrices"):
        matrices.read(tmp_path)


@pytest.mark.parametrize("family", REAL)
def test_real_families_come_from_matrices_that_are_large_enough(folder, family):
    source = Source(matrices.read(folder))
    A = draw_family(family, 20, seeded(3), source)
    assert float(A.abs().max()) == pytest.approx(1)
    if family == "leading block":
        block = 5 * conditioned(40, 10.0, seed=40)[:20, :20]
        torch.testing.assert_close(A, block / block.abs().max())
    else:
        # a projection's eigenvalues lie between those of the whole matrix
        values = torch.linalg.eigvalsh(A)
        assert float(values[-1] / values[0]) <= 10 * (1 + 1e-9)
    with pytest.raises(ValueError, match="must hold a matrix of at least 50 rows"):
        draw_family(family, 50, seeded(), source)


def test_unknown_family_says_what_there_is():
    with pytest.raises(ValueError, match="`family` must be one of"):
        draw_family("magic", 5, seeded(), DISTRIBUTIONS)


def test_squared_families_are_not_definite_by_themselves():
    for family in SQUARED:
        raw = [FAMILIES[family](12, seeded(seed), DISTRIBUTIONS) for seed in range(5)]
        definite = [int(torch.linalg.cholesky_ex((A + A.mT) / 2).info) == 0 for A in raw]
        assert not all(definite), family
