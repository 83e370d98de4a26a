"""Extending a basis: orthonormal whatever the block brings, and complete where it brings something."""

import pytest
import torch
from helpers import normal, seeded

import sketching
from sketching.algorithms.new_directions import new_directions


def orthonormal(m: int, k: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.linalg.qr(normal(m, k)).Q.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("kind", ["new", "old", "half", "zero", "nearly old"])
def test_columns_are_orthonormal_and_orthogonal_to_the_basis(kind, scale, dtype):
    Q = orthonormal(30, 8, dtype)
    old, new = Q @ normal(8, 6).to(dtype), normal(30, 6).to(dtype)
    block = {
        "new": new,
        "old": old,
        "half": torch.cat([old[:, :3], new[:, :3]], -1),
        "zero": torch.zeros_like(new),
        "nearly old": old + 1e-5 * new,
    }[kind]
    added = new_directions(Q, scale * block, seeded())
    whole = torch.cat([Q, added], -1)
    assert added.dtype == dtype
    identity = torch.eye(14, dtype=dtype)
    assert float((whole.mT @ whole - identity).abs().max()) < 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize("size", [1.0, 1e-8])
def test_what_the_block_spans_is_spanned(size):
    Q, new = orthonormal(30, 8), normal(30, 4)
    block = torch.cat([Q[:, :2] + size * new[:, :2], size * new[:, 2:]], -1)
    whole = torch.cat([Q, new_directions(Q, block, seeded())], -1)
    assert float((new - whole @ (whole.mT @ new)).norm() / new.norm()) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_block_krylov_where_the_space_is_complete_at_once(dtype):
    ones, eye = torch.ones(30, 30, dtype=dtype), torch.eye(30, dtype=dtype)
    dominated = torch.diag(torch.linspace(1, 2, 40)).to(dtype)
    dominated[0, 0] = 1e12
    for A in (ones, eye, dominated, torch.zeros_like(ones)):
        for block_size in (None, 1):
            found = sketching.block_krylov_svd(A, 3, block_size=block_size, num_iterations=4)
            exact = torch.linalg.svdvals(A)
            assert torch.allclose(found.S, exact[:3], rtol=1e-3, atol=1e-5 * float(exact[0]))
            assert torch.allclose(found.U.mT @ found.U, torch.eye(3, dtype=dtype), atol=1e-5)


def test_a_range_asked_for_more_than_there_is_stays_orthonormal():
    A = normal(60, 2) @ normal(2, 50)
    found = sketching.range_finder(A.float(), rtol=1e-12, block_size=2)
    assert not found.converged
    assert torch.allclose(found.Q.mT @ found.Q, torch.eye(found.Q.shape[1]), atol=1e-5)
