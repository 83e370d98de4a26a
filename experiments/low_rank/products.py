"""Matrices known by products alone: what a thin product beforehand is worth, and traces.

    OMP_NUM_THREADS=1 python -m experiments.low_rank.products

Low rank: the real matrices of `sketching_benchmark.py` hidden behind a LinearOperator, everybody charged for products
with A and its transpose. Traces: relative errors of unbiased estimators from equally many products.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse.linalg
import torch

import sketching
from experiments.common import environment
from experiments.common.options import option, parse
from experiments.common.reporting import progress, say, show_table, write_json
from experiments.low_rank.contenders import error
from experiments.low_rank.matrices import Case, cases
from experiments.low_rank.rows import FLOOR, by_case, geometric, number
from sketching.algorithms.error_estimate import NUM_TEST_VECTORS

VIEWS = ("thin", "traces")
_NUM_OVERSAMPLES = 10
_NUM_PRODUCTS = (32, 64, 128)


@dataclass(frozen=True)
class Config:
    """Low rank and traces of matrices that are known by products."""

    num_seeds: int = option(3, "draws of every sketch")
    num_trace_seeds: int = option(20, "draws of every trace estimate")
    output: Path = option(Path("results"), "folder of the JSON file")
    smoke: bool = option(False, "a tiny run that shows that everything works")

    def __post_init__(self):
        """Check what the types do not say."""
        if min(self.num_seeds, self.num_trace_seeds) < 1:
            raise ValueError("`--num-seeds` and `--num-trace-seeds` must be at least 1.")


@dataclass(frozen=True)
class Found:
    """Factors U, S, Vh and what they took, in vectors multiplied and in passes."""

    factors: tuple[np.ndarray, np.ndarray, np.ndarray]
    num_products: int
    num_passes: int


def main(config: Config) -> dict:
    """Run, show, write, and return what was written."""
    if config.smoke:
        config = replace(config, num_seeds=1, num_trace_seeds=2)
    environment.prepare()
    chosen = [case for case in cases(smoke=config.smoke) if not case.is_control]
    rows = []
    with progress("matrices", len(chosen)) as done:
        for case in chosen:
            rows += low_rank_rows(case, range(config.num_seeds))
            done(case.name)
    result = {
        "kind": "sketching-products",
        "config": {"num_seeds": config.num_seeds, "num_trace_seeds": config.num_trace_seeds},
        "environment": environment.describe(torch.device("cpu")),
        "trained": any((Path(sketching.__file__).parent / "weights").glob("*.safetensors")),
        "cases": [{"name": case.name, "shape": list(case.A.shape), "rank": case.rank} for case in chosen],
        "rows": rows,
        "traces": trace_rows(trace_matrices(chosen, smoke=config.smoke), range(config.num_trace_seeds)),
    }
    for view in VIEWS:
        show_table(caption(result, view), *comparison(result, view))
    path = config.output / "sketching-products.json"
    write_json(path, result, compact=True)
    say(f"wrote {path}")
    return result


def low_rank_rows(case: Case, seeds: range) -> list[dict]:
    """Excess error and cost of every method."""
    operator, optimum = scipy.sparse.linalg.aslinearoperator(case.A), case.optimum(case.rank)
    found = []
    for name, method in METHODS.items():
        for seed in seeds:
            answer = method(operator, case.rank, torch.Generator().manual_seed(seed))
            found.append(
                {
                    "case": case.name,
                    "method": name,
                    "seed": seed,
                    "products": answer.num_products / _width(operator, case.rank),
                    "passes": answer.num_passes,
                    "excess": error(case.A, answer.factors) / optimum - 1 if optimum > 0 else 0.0,
                }
            )
    return found


def _width(operator, rank: int) -> int:
    return min(rank + _NUM_OVERSAMPLES, *operator.shape)


def _ours(sketch: str, num_power_iterations: int | str = 0) -> Callable:
    def run(operator, rank: int, generator: torch.Generator) -> Found:
        result = sketching.randomized_svd(
            operator, rank, sketch=sketch, num_power_iterations=num_power_iterations, generator=generator
        )
        return _found(result)

    return run


def _more_oversamples(operator, rank: int, generator: torch.Generator) -> Found:
    """A Gaussian sketch that spends the thin product's vectors on both of its passes."""
    more = _NUM_OVERSAMPLES + -(-_width(operator, rank) // 2)
    result = sketching.randomized_svd(
        operator, rank, sketch="gaussian", num_oversamples=more, num_power_iterations=0, generator=generator
    )
    return _found(result)


def _found(result: sketching.LowRank) -> Found:
    factors = (result.U.numpy(), result.S.numpy(), result.Vh.numpy())
    # the vectors that measure the error ride along for everybody, and are not what is compared
    return Found(factors, result.num_matvecs - NUM_TEST_VECTORS, result.num_passes)


def _half_iteration(operator, rank: int, generator: torch.Generator) -> Found:
    """Three passes from the left side (Halko, Martinsson & Tropp 2011, Section 4.5)."""
    count = _width(operator, rank)
    start = torch.randn(operator.shape[0], count, generator=generator, dtype=torch.float64).numpy()
    right = np.linalg.qr(operator.rmatmat(start))[0]
    left = np.linalg.qr(operator.matmat(right))[0]
    U, S, Vh = np.linalg.svd(operator.rmatmat(left).T, full_matrices=False)
    return Found(((left @ U)[:, :rank], S[:rank], Vh[:rank]), 3 * count, 3)


METHODS: dict[str, Callable] = {
    "rangeformer, a thin product first": _ours("rangeformer"),
    "span of the thin product, Gaussian fill": _ours("sampled-rows"),
    "half power iteration": _half_iteration,
    "Gaussian, as many products": _more_oversamples,
    "Gaussian": _ours("gaussian"),
    "rangeformer, auto": _ours("rangeformer", "auto"),
    "Gaussian, auto": _ours("gaussian", "auto"),
}
"""By name, `(operator, rank, generator) -> Found`."""


def trace_matrices(chosen: list[Case], *, smoke: bool) -> dict[str, torch.Tensor]:
    """Symmetric matrices: a kernel, Gram matrices of real tables, and two prescribed spectra with Haar vectors."""
    tables = {case.name: torch.from_numpy(case.A) for case in chosen}
    found = {}
    if "mnist kernel" in tables:
        found["mnist kernel"] = tables["mnist kernel"]
    for name in ("faces", "china", "digits"):
        if name in tables:
            A = tables[name]
            found[f"Gram matrix of {name}"] = A @ A.mT if A.shape[0] <= A.shape[1] else A.mT @ A
    n = 60 if smoke else 500
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    for power in (0.5, 2.0):
        values = torch.arange(1, n + 1, dtype=torch.float64) ** -power
        found[f"eigenvalues j^-{power:g}"] = (Q * values) @ Q.mT
    return found


def trace_rows(matrices: dict[str, torch.Tensor], seeds: range) -> list[dict]:
    """Median relative error of every estimator from equally many products."""
    found = []
    with progress("traces", len(matrices)) as done:
        for name, A in matrices.items():
            truth = float(A.trace())
            for estimator, estimate in ESTIMATORS.items():
                for count in _NUM_PRODUCTS:
                    values = [estimate(A, count, torch.Generator().manual_seed(seed)) for seed in seeds]
                    errors = [abs(value - truth) / abs(truth) for value in values]
                    found.append(
                        {"case": name, "method": estimator, "products": count, "error": float(np.median(errors))}
                    )
            done(name)
    return found


def _signs(A: torch.Tensor, count: int, generator: torch.Generator) -> float:
    signs = torch.randint(0, 2, (len(A), count), generator=generator).to(A.dtype) * 2 - 1
    return float((signs * (A @ signs)).sum() / count)


ESTIMATORS: dict[str, Callable[[torch.Tensor, int, torch.Generator], float]] = {
    "random signs": _signs,
    "Hutch++": lambda A, k, g: sketching.estimate_trace(A, k, sketch="gaussian", generator=g).value,
    "Hutch++, rangeformer": lambda A, k, g: sketching.estimate_trace(A, k, generator=g).value,
    "XTrace": lambda A, k, g: sketching.xtrace(A, k, generator=g).value,
}
"""By name, `(A, products, generator) -> trace`."""


def caption(result: dict, view: str = "") -> str:
    """What the numbers of a view are."""
    config = result["config"]
    if view == "traces":
        return (
            f"Traces: median relative error over {config['num_trace_seeds']} seeds from {_listed(_NUM_PRODUCTS)} "
            "products; "
            "`rangeformer` reads rows beside"
        )
    return (
        f"{len(result['cases'])} real matrices known by products alone, rank min(40, n/3), l = rank + "
        f"{_NUM_OVERSAMPLES} columns, "
        f"{config['num_seeds']} seeds, {'trained' if result['trained'] else 'untrained'}: geometric means of excess "
        "error over the best rank-r, "
        "products in units of l"
    )


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows of a view."""
    return _traces(result) if view == "traces" else _thin(result)


def _thin(result: dict) -> tuple[list[str], list[list[str]]]:
    excess = {method: by_case(result["rows"], method, "excess") for method in METHODS}
    reference = excess["rangeformer, a thin product first"]
    rows = []
    for method, own in excess.items():
        better = sum(max(own[name], FLOOR) < max(reference[name], FLOOR) for name in own)
        rows.append(
            [
                method,
                f"{np.mean(list(by_case(result['rows'], method, 'passes').values())):.1f}",
                f"{np.mean(list(by_case(result['rows'], method, 'products').values())):.2f}",
                number(geometric(own.values())),
                f"{better} of {len(own)}",
            ]
        )
    return ["", "passes", "products", "excess", "better than the first on"], rows


def _traces(result: dict) -> tuple[list[str], list[list[str]]]:
    errors = {(row["case"], row["method"], row["products"]): row["error"] for row in result["traces"]}
    names = dict.fromkeys(row["case"] for row in result["traces"])
    rows = [
        [name, *(", ".join(f"{errors[name, method, count]:.1e}" for count in _NUM_PRODUCTS) for method in ESTIMATORS)]
        for name in names
    ]
    return ["", *ESTIMATORS], rows


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"


if __name__ == "__main__":
    main(parse(Config))
