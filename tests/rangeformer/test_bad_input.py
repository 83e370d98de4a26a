"""Every message about bad input, as a user without a run-time type checker meets it.

The tests' type checker would step in before our own checks; so all calls are made in one fresh process without it,
which prints what was raised.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import rangeformer as rf
from rangeformer.models.pure import PureRangeFormer

ROOT = Path(__file__).parents[2]


def A(n: int = 6) -> torch.Tensor:
    i = torch.arange(n, dtype=torch.float64)
    return torch.exp(-(i[:, None] - i).abs()) + torch.eye(n, dtype=torch.float64)


def b(*shape: int) -> torch.Tensor:
    return torch.ones(shape or (6,), dtype=torch.float64)


def asymmetric() -> torch.Tensor:
    M = A()
    M[0, 1] += 1e-3
    return M


def with_nan() -> torch.Tensor:
    M = b()
    M[2] = torch.nan
    return M


def P(n: int = 6) -> rf.Preconditioner:
    return rf.build_preconditioner(A(n))


def check_numpy_numbers() -> None:
    P = rf.build_preconditioner(A(), num_columns=np.int64(2), num_neighbors=np.int32(1))
    raise ValueError(f"columns {P.num_columns}, neighbours {P.num_neighbors}")


DRIVERS: dict[str, Callable] = {
    "linear_solve": lambda A, **k: rf.linear_solve(A, torch.ones(A.shape[-1], dtype=torch.float64), **k),
    "logdet": lambda A, **k: rf.logdet(A, **k),
    "inv_quad_logdet": lambda A, **k: rf.inv_quad_logdet(A, torch.ones(A.shape[-1], dtype=torch.float64), **k),
    "sample_gaussian": lambda A, **k: rf.sample_gaussian(A, 2, **k),
}

# name -> (call, type of the error, pattern of the message)
CASES: dict[str, tuple[Callable, type[Exception], str]] = {
    "rhs numpy": (lambda: rf.linear_solve(A(), np.ones(6) * 1j), TypeError, "`rhs` must be real. Got torch.complex128"),
    "rhs list": (lambda: rf.linear_solve(A(), ["1"] * 6), TypeError, "`rhs` must hold numbers. Got an array of <U1"),
    "rhs text": (lambda: rf.linear_solve(A(), "b"), TypeError, "`rhs` must be a tensor, an array or a list. Got str"),
    "model": (
        lambda: rf.eigvalsh(A(), model="pure"),
        TypeError,
        r"`model` must be a LoopedModel \(LearnedKrylovModel, PureRangeFormer\) or None. Got str",
    ),
    "model, direct solve": (lambda: rf.linear_solve(A(), b(), model=3), TypeError, "`model` must be a LoopedModel"),
    "model, singular values": (
        lambda: rf.svdvals(A(), model=PureRangeFormer.untrained()),
        TypeError,
        "`model` must be a LearnedKrylovModel or None for this operation. Got PureRangeFormer",
    ),
    "num_loops": (lambda: rf.lstsq(A(), b(), num_loops=1.5), ValueError, "`num_loops` must be an integer >= 1 or None"),
    "rhs integer": (
        lambda: rf.linear_solve(A(), b().long()),
        TypeError,
        "A's dtype torch.float64. Got torch.int64; convert",
    ),
    "rhs integer, callable": (
        lambda: rf.linear_solve((lambda v: v, (6, 6)), b().long()),
        TypeError,
        "A's dtype torch.float64. Got torch.int64",
    ),
    "rhs float32": (lambda: rf.linear_solve(A(), b().float()), TypeError, "`rhs` must have A's dtype torch.float64"),
    "rhs complex": (lambda: rf.linear_solve(A(), b().to(torch.complex128)), TypeError, "Got torch.complex128"),
    "rhs short": (
        lambda: rf.linear_solve(A(), b(5, 3)),
        ValueError,
        r"`rhs` must have shape \(n,\) or \(\*batch, n, k\) with n = 6. Got \(5, 3\)",
    ),
    "rhs scalar": (
        lambda: rf.linear_solve(A(), torch.tensor(1.0).double()),
        ValueError,
        r"`rhs` must have shape .* Got \(\)",
    ),
    "rhs without columns": (
        lambda: rf.linear_solve(A(), b(6, 0)),
        ValueError,
        r"`rhs` must have shape .* Got \(6, 0\)",
    ),
    "rhs of a larger batch": (
        lambda: rf.linear_solve(A(), b(2, 6, 1)),
        ValueError,
        r"batch shape that broadcasts to A's \(\). Got \(2, 6, 1\)",
    ),
    "rhs of another batch": (
        lambda: rf.linear_solve(A().expand(3, 6, 6), b(2, 6, 1)),
        ValueError,
        r"batch shape that broadcasts to A's \(3,\)",
    ),
    "rhs elsewhere": (
        lambda: rf.linear_solve(A(), b().to("meta")),
        ValueError,
        "`rhs` must be on A's device cpu. Got meta; move one",
    ),
    "rhs NaN": (lambda: rf.linear_solve(A(), with_nan()), ValueError, "`rhs` must be finite. Got NaN or infinite"),
    "rhs NaN, inv_quad": (lambda: rf.inv_quad_logdet(A(), with_nan()), ValueError, "`rhs` must be finite"),
    "rhs short, inv_quad": (lambda: rf.inv_quad_logdet(A(), b(5)), ValueError, "`rhs` must have shape"),
    "rhs None, inv_quad": (lambda: rf.inv_quad_logdet(A(), None), TypeError, "`rhs` must be a tensor, an array or a"),
    "method": (
        lambda: rf.linear_solve(A(), b(), method="gmres"),
        ValueError,
        r"`method` must be one of \('auto', 'cg', 'block-cg', 'learned-krylov'\), or a rangeformer.Solver. Got 'gmres'",
    ),
    "num_samples zero": (
        lambda: rf.sample_gaussian(A(), 0),
        ValueError,
        "`num_samples` must be an integer >= 1. Got 0",
    ),
    "num_samples None": (lambda: rf.sample_gaussian(A(), None), ValueError, "`num_samples` must be .* Got None"),
    "num_samples float": (lambda: rf.sample_gaussian(A(), 2.0), ValueError, "`num_samples` must be .* Got 2.0"),
    "num_probes": (
        lambda: rf.logdet(A(), num_probes=0),
        ValueError,
        "`num_probes` must be an integer >= 1 or None. Got 0",
    ),
    "probe_rtol": (
        lambda: rf.inv_quad_logdet(A(), b(), probe_rtol=-1.0),
        ValueError,
        "`probe_rtol` must be a positive number. Got -1.0",
    ),
    "num_columns": (
        lambda: rf.build_preconditioner(A(), num_columns=-1),
        ValueError,
        "`num_columns` must be an integer >= 0 or None. Got -1",
    ),
    "num_columns bool": (
        lambda: rf.build_preconditioner(A(), num_columns=True),
        ValueError,
        "`num_columns` .* Got True",
    ),
    "num_neighbors": (
        lambda: rf.build_preconditioner(A(), num_neighbors=1.5),
        ValueError,
        "`num_neighbors` must be an integer >= 0 or None. Got 1.5",
    ),
    "numpy numbers are numbers": (check_numpy_numbers, ValueError, "columns 2, neighbours 1"),
    "num_rhs": (
        lambda: rf.build_preconditioner(A(), num_rhs=None),
        ValueError,
        "`num_rhs` must be an integer >= 1. Got None",
    ),
    "option columns": (
        lambda: rf.linear_solve(A(), b(), preconditioner=rf.RangeFormerPreconditioner(num_columns=-2)),
        ValueError,
        "`num_columns` must be an integer >= 0 or None. Got -2",
    ),
    "option neighbours": (
        lambda: rf.linear_solve(A(), b(), preconditioner=rf.RangeFormerPreconditioner(num_neighbors="3")),
        ValueError,
        "`num_neighbors` must be .* Got '3'",
    ),
    "option rank": (
        lambda: rf.logdet(A(), preconditioner=rf.NystromPreconditioner(-1)),
        ValueError,
        "`rank` must be .* Got -1",
    ),
    "option rank None": (
        lambda: rf.logdet(A(), preconditioner=rf.ColumnPreconditioner(rank=None)),
        ValueError,
        "`rank` must be an integer >= 0. Got None",
    ),
    "option rule": (
        lambda: rf.logdet(A(), preconditioner=rf.ColumnPreconditioner("largest")),
        ValueError,
        r"`rule` must be one of \('random', 'greedy'\). Got 'largest'",
    ),
    "P of another size": (
        lambda: rf.linear_solve(A(), b(), preconditioner=P(7)),
        ValueError,
        r"`preconditioner` must have A's shape \(6, 6\). Got one built for \(7, 7\)",
    ),
    "P of another dtype": (
        lambda: rf.linear_solve(A().float(), b().float(), preconditioner=P()),
        ValueError,
        "must have A's dtype torch.float32 and device cpu. Got one in torch.float64",
    ),
    "structure of another size": (
        lambda: rf.build_preconditioner(A(8), structure=P().structure),
        ValueError,
        r"`structure` must belong to a matrix of A's shape \(8, 8\)",
    ),
    "indefinite samples": (
        lambda: rf.sample_gaussian(A() - 2 * torch.eye(6).double(), 2),
        ValueError,
        "`A` must be positive definite. Got an indefinite matrix; add a multiple of the identity",
    ),
    "wrong product": (
        lambda: rf.linear_solve((lambda v: v[:3], (6, 6)), b()),
        ValueError,
        r"must return a tensor of shape \(6, 2\)",
    ),
    "NaN in a product": (
        lambda: rf.linear_solve((lambda v: v * torch.nan, (6, 6)), b()),
        ValueError,
        "`A` must be finite. Got NaN or infinity in a product with it",
    ),
    "asymmetric callable": (
        lambda: rf.linear_solve((lambda v: v.cumsum(-2), (6, 6)), b()),
        ValueError,
        "`A` must be symmetric",
    ),
}
for name, driver in DRIVERS.items():
    CASES |= {
        f"{name} not square": (
            lambda d=driver: d(b(3, 4)),
            ValueError,
            r"`A` must be square, \(\*batch, n, n\). Got \(3, 4\)",
        ),
        f"{name} asymmetric": (
            lambda d=driver: d(asymmetric()),
            ValueError,
            "`A` must be symmetric. Got a relative asymmetry of .* pass",
        ),
        f"{name} empty": (lambda d=driver: d(b(0, 0)), ValueError, "`A` must not be empty"),
        f"{name} complex": (
            lambda d=driver: d(A() * 1j),
            TypeError,
            "`A` must be real. Got torch.complex128",
        ),
        f"{name} NaN": (lambda d=driver: d(A() * torch.nan), ValueError, "`A` must be finite. Got 36"),
        f"{name} infinite": (lambda d=driver: d(A() / 0), ValueError, "`A` must be finite. Got 36"),
        f"{name} negative rtol": (
            lambda d=driver: d(A(), rtol=-1e-3),
            ValueError,
            "`rtol` must be a positive number. Got -0.001",
        ),
        f"{name} zero rtol": (lambda d=driver: d(A(), rtol=0), ValueError, "`rtol` must be a positive number. Got 0"),
        f"{name} NaN rtol": (lambda d=driver: d(A(), rtol=float("nan")), ValueError, "`rtol` must be .* Got nan"),
        f"{name} text rtol": (lambda d=driver: d(A(), rtol="1e-3"), ValueError, "`rtol` must be .* Got '1e-3'"),
        f"{name} no iterations": (
            lambda d=driver: d(A(), max_iterations=0),
            ValueError,
            "`max_iterations` must be an integer >= 1. Got 0",
        ),
        f"{name} endless": (
            lambda d=driver: d(A(), max_iterations=None),
            ValueError,
            "`max_iterations` must be .* Got None",
        ),
        f"{name} unknown preconditioner": (
            lambda d=driver: d(A(), preconditioner="jacobi"),
            ValueError,
            "`preconditioner` must be one of 'rangeformer', .* or None. Got 'jacobi'",
        ),
        f"{name} odd preconditioner": (
            lambda d=driver: d(A(), preconditioner=3),
            TypeError,
            "`preconditioner` must be a name, an options object, .* Got int",
        ),
    }
    if name != "sample_gaussian":
        CASES[f"{name} fallback"] = (
            lambda d=driver: d(A(), fallback="pray"),
            ValueError,
            r"`fallback` must be one of \('dense', None\). Got 'pray'",
        )


def raised_by(call: Callable) -> list[str]:
    try:
        call()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


@pytest.fixture(scope="module")
def raised() -> dict[str, list[str]]:
    code = "import json, test_bad_input as t; print(json.dumps({n: t.raised_by(c[0]) for n, c in t.CASES.items()}))"
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("name", CASES)
def test_message(name, raised):
    _, error, pattern = CASES[name]
    kind, message = raised[name]
    assert kind == error.__name__, f"{kind}: {message}"
    assert re.search(pattern, message), message


def test_asymmetry_at_rounding_level_is_no_error():
    M = A()
    M[0, 1] *= 1 + 1e-15
    assert rf.linear_solve(M, b()).converged.all()
