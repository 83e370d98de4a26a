"""Nothing is kept: resident memory stays where it was over hundreds of calls, and tables forget models."""

import contextlib
import ctypes
import gc
import os
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import kernel, normal

import rangeformer as rf
import sketching
from gp_integration import fantasies, structure_cache, training_system
from gp_integration.settings import use_rangeformer
from tests.gp_integration.gp_models import data, exact_gp, predict, value_and_gradient

STATM = Path("/proc/self/statm")
N = 60
ALLOWED = 2.5  # MiB; the allocator's own noise is below one


def collect() -> None:
    """Free what can be freed: an entry of a weak table goes with its key, and what the entry held goes after that."""
    for _ in range(3):
        gc.collect()


def resident() -> float:
    """Resident memory of this process in MiB, after everything that can be freed is."""
    collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth(call: Callable[[], object], repeats: int) -> float:
    """MiB gained by many calls, after some that may fill caches; the smaller of two rounds if the first shows any."""
    for _ in range(max(3, repeats // 5)):
        call()
    gained = []
    while not gained or (len(gained) < 2 and gained[0] > ALLOWED):  # others share the heap
        before = resident()
        for _ in range(repeats):
            call()
        gained.append(resident() - before)
    return min(gained)


def block() -> use_rangeformer:
    return use_rangeformer(min_size=0, num_columns=10, num_neighbors=4)


A, B = kernel(N), normal(N, 3)


def differentiated() -> None:
    variable = A.clone().requires_grad_()
    rf.inv_quad_logdet(variable, B).logdet.backward()


def new_model() -> None:
    """A model, its training step, prediction and fantasies, all gone afterwards."""
    model = exact_gp(N)
    with block():
        value_and_gradient(model)
        with torch.no_grad():
            predict(model, data(3)[0]).covariance_matrix  # noqa: B018 - it is computed when it is asked for
            model.get_fantasy_model(*data(2, seed=3))(data(3)[0]).variance  # noqa: B018


class Same:
    """One model, trained and asked again and again."""

    def __init__(self):
        self.model = exact_gp(N)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)

    def __call__(self):
        with block():
            value_and_gradient(self.model)
            self.optimizer.step()
            with torch.no_grad():
                predict(self.model, data(3)[0]).variance  # noqa: B018


CALLS = {
    "linear_solve": (80, lambda: rf.linear_solve(A, B)),
    "linear_solve, numpy": (25, lambda: rf.linear_solve(A.numpy(), B.numpy())),
    "linear_solve, learned-krylov": (60, lambda: rf.linear_solve(A, B, method="learned-krylov", num_loops=3)),
    "gradient": (30, differentiated),
    "eigvalsh": (60, lambda: rf.eigvalsh(A, num_loops=2)),
    "randomized_svd": (60, lambda: sketching.randomized_svd(A, 5)),
    "load": (60, lambda: rf.load("learned-krylov")),
    "one model": (30, Same()),
    "new models": (12, new_model),
}


@pytest.mark.skipif(not STATM.exists(), reason="this system does not tell resident memory")
@pytest.mark.parametrize("name", CALLS)
def test_memory_does_not_grow(name):
    repeats, call = CALLS[name]
    gained = growth(call, repeats)
    assert gained < ALLOWED, f"{gained:.1f} MiB over {repeats} calls"


@pytest.mark.skipif(not STATM.exists(), reason="this system does not tell resident memory")
def test_growth_would_be_seen():
    kept = []
    assert growth(lambda: kept.append(torch.ones(2 * N, N, dtype=torch.float64)), 60) > ALLOWED


def test_tables_forget_models_that_are_gone():
    tables = (structure_cache._entries, training_system._systems, fantasies._fantasies)
    collect()
    before = [len(table) for table in tables]
    models = [exact_gp(N) for _ in range(3)]
    kept = []
    with block(), torch.no_grad():
        for model in models:
            with torch.enable_grad():
                value_and_gradient(model)
            predict(model, data(3)[0]).covariance_matrix  # noqa: B018
            kept.append(model.get_fantasy_model(*data(2, seed=3)))
    assert [len(table) - count for table, count in zip(tables, before, strict=True)] == [3, 3, 3]
    gone = [weakref.ref(one) for one in (*models, *(m.covar_module for m in models), *kept)]
    del models, model, kept
    collect()
    assert not any(reference() is not None for reference in gone)
    assert [len(table) for table in tables] == before


def test_a_model_that_lives_keeps_one_entry():
    collect()
    before = len(structure_cache._entries), len(training_system._systems)
    same = Same()
    for _ in range(5):
        same()
    collect()
    assert (len(structure_cache._entries), len(training_system._systems)) == (before[0] + 1, before[1] + 1)
    assert len(structure_cache._entries[same.model.covar_module]) <= 2
