"""What the loops of the direct heads are worth.

Solves and log-determinants of whole real matrices at 2, 4, 8 and 16 loops.

Untrained, the Galerkin member is block Lanczos from the right-hand side and Gaussian directions, so it is its own
classical twin; CG with the diagonal, at equal passes and at equal products, is the rival of a solve, stochastic Lanczos
quadrature at equal passes (and so at equal products: all probes share a pass) that of a log-determinant. The oracle is
a dense factorisation. Headroom is counted in decimal digits of the residual, and in nats a row of the log-determinant's
error. The control is a group of matrices with Haar bases, where there is no structure to have learned beyond the
spectrum.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from experiments.common.contenders import Direct, Krylov, Ours, Price, Problem, problem
from experiments.common.matrices import NamedMatrix
from experiments.common.measures import captured, error_text, geometric_mean, relative_error, share_text
from experiments.common.models import GALERKIN, GALERKIN_UNTRAINED, PURE, PURE_UNTRAINED
from experiments.common.reporting import progress
from experiments.ood.matrices import ROUNDING
from rangeformer.distributions import draw
from rangeformer.models.looped_model import LoopedModel

LOOPS = (2, 4, 8, 16)
CONTROL = "Haar (control)"
_LARGEST = 1200  # rows; beyond, dense products with 64 vectors take longer than they tell
_CONTROL_SIZE = 300
_TINY, _HUGE = 1e-16, 1e16


def measure(
    operation: str, models: dict[str, LoopedModel], real: Sequence[NamedMatrix], num_draws: int, num_control: int
) -> list[dict]:
    """One row for every matrix, draw and number of loops, with the loss of every column; smaller is better."""
    cases = [("real", item.name, item.dense()) for item in real if item.num_rows <= _LARGEST]
    for seed in range(num_control):
        generator = torch.Generator().manual_seed(seed)
        matrix = draw("spectral_decay", _CONTROL_SIZE, generator=generator, noise_range=(1e-4, 1e-2)).matrix[0]
        cases.append((CONTROL, f"Haar-{seed}", matrix))
    rows = []
    with progress(f"Direct: {operation}", len(cases) * num_draws) as advance:
        for group, name, matrix in cases:
            scale = matrix.diagonal().mean()
            for seed in range(num_draws):
                case = problem(name, matrix / scale, torch.Generator().manual_seed(seed))
                for loops in LOOPS:
                    losses = compare(case, operation, models, loops, seed)
                    rows.append(
                        {
                            "group": group,
                            "matrix": name,
                            "n": len(matrix),
                            "draw": seed,
                            "loops": loops,
                            "losses": losses,
                        }
                    )
                advance(f"{name}, draw {seed}")
    return rows


def compare(case: Problem, operation: str, models: dict[str, LoopedModel], loops: int, seed: int) -> dict[str, float]:
    """The loss of every column; classical ones pay what the last of ours has read."""
    price, found = Price(loops, loops), {}
    for label, model in models.items():
        answer = Ours(label, model, loops).answer(case, operation, price)
        price = answer.price if answer.price.num_passes else price
        found[label] = _loss(case, operation, answer.value)
    rivals = [Krylov("Jacobi-CG, equal passes", "passes", preconditioned=True, by_residual=True)]
    rivals += [Krylov("Jacobi-CG, equal matvecs", "matvecs", preconditioned=True, by_residual=True)]
    if operation == "logdet":
        rivals = [Krylov("Lanczos quadrature, equal passes", "passes", seed=seed)]
    for column in (*rivals, Direct("direct")):
        found[column.label] = _loss(case, operation, column.answer(case, operation, price).value)
    return found


def _loss(case: Problem, operation: str, value: Tensor | None) -> float:
    """Relative residual of a solve; error of a log-determinant in nats a row."""
    assert value is not None, "every column of this comparison answers"
    if operation == "logdet":
        error = float((value - case.truth["logdet"]).abs()) / case.num_rows
    else:
        error = relative_error(case.matrix @ value, case.rhs)
    return min(error, _HUGE) if math.isfinite(error) else _HUGE


def gains(operation: str, rows: list[dict]) -> dict:
    """Headroom captured from untrained, and from the best rival, towards the oracle, by group and number of loops.

    A pair of the bootstrap is a matrix, its draws averaged: draws of one matrix are not independent evidence.
    """
    found: dict = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        for loops in LOOPS:
            chosen = [row for row in rows if (row["group"], row["loops"]) == (group, loops)]
            means = {label: _by_matrix(operation, chosen, label) for label in chosen[0]["losses"]}
            found[f"{group}, {loops} loops"] = {
                name: captured(means[start], means[ours], means["direct"])
                for name, start, ours in _pairs(chosen[0]["losses"])
            }
    return found


def _by_matrix(operation: str, rows: list[dict], label: str) -> list[float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row["matrix"], []).append(_scale(operation, row["losses"][label]))
    return [sum(found) / len(found) for found in values.values()]


def _pairs(losses: dict[str, float]) -> list[tuple[str, str, str]]:
    rivals = [label for label in losses if label.startswith(("Jacobi", "Lanczos"))]
    pairs = [
        ("untrained to trained", GALERKIN_UNTRAINED, GALERKIN),
        ("pure: untrained to trained", PURE_UNTRAINED, PURE),
    ]
    pairs += [(f"{rival} to trained", rival, GALERKIN) for rival in rivals]
    return [(name, start, ours) for name, start, ours in pairs if start in losses and ours in losses]


def _scale(operation: str, loss: float) -> float:
    """Digits of a residual, down to where the space was complete; a log-determinant's error as it is."""
    return loss if operation == "logdet" else math.log10(max(loss, ROUNDING))


def comparison(operation: str, result: dict) -> tuple[list[str], list[list[str]]]:
    """Header and rows: geometric mean losses and shares, a column for every group and number of loops."""
    keys = [*result["gains"]]
    groups = {
        key: [row["losses"] for row in result["rows"] if f"{row['group']}, {row['loops']} loops" == key] for key in keys
    }
    labels = [*groups[keys[0]][0]]
    rows = [
        [label, *(error_text(geometric_mean([losses[label] for losses in groups[key]], _TINY)) for key in keys)]
        for label in labels
    ]
    for name in result["gains"][keys[0]]:
        rows.append([f"captured: {name}", *(share_text(result["gains"][key][name]) for key in keys)])
    return ["", *keys], rows


def caption(operation: str, result: dict) -> str:
    """What the numbers are."""
    draws = f"{result['config']['num_draws']} draws of each matrix"
    if operation == "logdet":
        return f"Log-determinants: error in nats a row, geometric mean over matrices and {draws}, float64"
    return f"Direct solves: relative residual, geometric mean over matrices and {draws}, float64; shares in digits"
