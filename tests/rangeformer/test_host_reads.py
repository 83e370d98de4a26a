"""On a GPU every number that the host reads makes it wait for the device.

The loops read what decides whether they go on, and no more.
"""

from contextlib import contextmanager

import pytest
import torch

from rangeformer.krylov.block_lanczos import BlockKrylov
from rangeformer.krylov.conjugate_gradients import conjugate_gradients
from rangeformer.krylov.search_space import SearchSpace
from rangeformer.operators import as_operator
from rangeformer.preconditioners.pivoted import pivoted_cholesky
from tests.helpers import kernel, normal, seeded

READS = ("__bool__", "__float__", "__int__", "item", "tolist", "numpy")


@contextmanager
def counted():
    """How often a tensor was read, as a list that grows."""
    found: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in READS:
            original = getattr(torch.Tensor, name)

            def read(self, *args, original=original, name=name):
                found.append(name)
                return original(self, *args)

            patch.setattr(torch.Tensor, name, read)
        yield found


def test_counting_sees_a_reading():
    with counted() as reads:
        bool(torch.ones(3).sum() > 2)
        torch.ones(2).tolist()
    assert reads == ["__bool__", "tolist"]


def test_conjugate_gradients_read_the_stopping_test_alone():
    A, rhs = kernel(80), normal(80, 3)
    targets = torch.full((3,), 1e-30, dtype=torch.float64)
    with counted() as reads:
        iterate = conjugate_gradients(A.matmul, rhs, torch.clone, target_norms=targets, max_iterations=7)
    assert iterate.num_iterations == 7
    assert len(reads) == 7


def test_a_block_krylov_space_is_read_once_a_loop():
    A = kernel(80)
    with counted() as reads:
        krylov = BlockKrylov(lambda block: (A @ block, A @ block), normal(80, 4), capacity=80)
        for _ in range(5):
            assert krylov.expand()
            assert krylov.positive_definite
    assert krylov.num_blocks == 6
    assert len(reads) == 6


def test_a_galerkin_space_is_read_once_a_loop_and_draws_replacements_only_where_something_died(monkeypatch):
    operator = as_operator(kernel(120))
    space = SearchSpace(operator, generator=seeded())
    drawn = []
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *args, **kwargs: drawn.append(1) or randn(*args, **kwargs))
    block = normal(120, 8)
    drawn.clear()
    with counted() as reads:
        space.expand(block)
        for _ in range(4):
            space.expand(space.reached())
    assert len(reads) == 5
    assert not drawn
    dead = SearchSpace(operator, generator=seeded())
    dead.expand(torch.cat([block[:, :2], block[:, :2]], -1))
    assert len(drawn) == 1
    assert dead.dimension == 4


def test_pivots_are_drawn_without_a_reading():
    operator = as_operator(kernel(60))
    with counted() as reads:
        found = pivoted_cholesky(operator, 20, generator=seeded())
    assert not reads
    assert len(found.pivots.unique()) == 20


def test_pivots_are_those_of_one_draw_after_the_other():
    A, generator = torch.stack([kernel(40), kernel(40, seed=1)]), seeded(5)
    found = pivoted_cholesky(as_operator(A), 6, generator=seeded(5))
    residual = A.diagonal(dim1=-2, dim2=-1).clone()
    for j in range(6):
        u = torch.rand(2, 1, dtype=torch.float64, generator=generator)
        cumulative = residual.cumsum(-1)
        pivot = torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True)
        assert torch.equal(pivot, found.pivots[:, j : j + 1])
        residual = (residual - found.factor[..., j].square()).clamp_min(0).scatter(-1, pivot, 0.0)
