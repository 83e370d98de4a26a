"""Whole matrices of a folder: the relative residual after a few reads, against CG and Jacobi-CG."""

from collections.abc import Sequence

import scipy.sparse
import torch
from torch import Tensor

import rangeformer as rf
from experiments.common import classical
from experiments.common.contenders import solve_directly
from experiments.common.matrices import NamedMatrix
from experiments.common.measures import error_text, geometric_mean
from experiments.common.reporting import progress
from experiments.ood.families import draw_like_real, like_real
from rangeformer.models.looped_model import LoopedModel

READS = (2, 4, 8, 16)
ROUNDING = 1e-8  # a residual below it came from a search space that was complete, or as good as that: no room is left
_IMITATED_SIZE = 200


def imitations(num: int) -> list[NamedMatrix]:
    """Where there is no folder: matrices of the distributions that imitate real ones, `num` of each."""
    generator = torch.Generator().manual_seed(0)
    return [
        NamedMatrix(f"{law}-{i}", scipy.sparse.csr_array(draw_like_real(law, _IMITATED_SIZE, generator).numpy()))
        for law in like_real()
        for i in range(num)
    ]


def measure(models: dict[str, LoopedModel], real: Sequence[NamedMatrix], num_draws: int) -> list[dict]:
    """One row for every matrix, right-hand side and number of reads: the relative residual of every column."""
    rows = []
    with progress("Matrices", len(real) * num_draws) as advance:
        for item in real:
            for seed in range(num_draws):
                generator = torch.Generator().manual_seed(seed)
                rhs = torch.randn(item.num_rows, 1, generator=generator, dtype=torch.float64)
                rows += [
                    {"matrix": item.name, "n": item.num_rows, "draw": seed, **compare(item, rhs, models, reads)}
                    for reads in READS
                ]
                advance(f"{item.name}, draw {seed}")
    return rows


def compare(item: NamedMatrix, rhs: Tensor, models: dict[str, LoopedModel], reads: int) -> dict:
    """Ours with `reads` loops; CG with as many passes, and with as many products, as the last of ours needed.

    CG answers with its iterate of the smallest residual, which it would know.
    """
    operator = rf.as_operator(item.matrix)
    residuals, passes, matvecs = {}, reads, reads
    for label, model in models.items():
        solution = solve_directly(operator, rhs, model, reads)
        residuals[label] = _residual(operator, rhs, solution.value)
        passes, matvecs = solution.num_passes, solution.num_matvecs
    diagonal = torch.from_numpy(item.matrix.diagonal())
    for currency, steps in (("passes", passes), ("matvecs", min(matvecs, 10 * item.num_rows))):
        for label, precondition in (("CG", None), ("Jacobi-CG", classical.jacobi(diagonal))):
            run = classical.conjugate_gradients(operator.matmul, rhs, steps, precondition)
            residuals[f"{label}, equal {currency}"] = _residual(operator, rhs, run.smallest)
    return {"reads": reads, "num_passes": passes, "num_matvecs": matvecs, "residuals": residuals}


def _residual(operator: rf.MatrixOperator, rhs: Tensor, solution: Tensor) -> float:
    """Recomputed from the solution, whatever its author says."""
    found = float(torch.linalg.vector_norm(rhs - operator.matmul(solution)) / torch.linalg.vector_norm(rhs))
    return found if found < float("inf") else 1e300


def summary(rows: list[dict], trained: str, untrained: str) -> dict:
    """Geometric means over matrices and draws by reads, and in how many systems ours beats both CGs at equal passes.

    The ratio of trained to untrained is given for all systems, and for those that the untrained member left unfinished.
    """
    found = {}
    for reads in dict.fromkeys(row["reads"] for row in rows):
        group = [row["residuals"] for row in rows if row["reads"] == reads]
        means = {label: geometric_mean([residuals[label] for residuals in group]) for label in group[0]}
        found[str(reads)] = {"geometric_means": means, "num_systems": len(group)}
        if trained in means and untrained in means:
            ratios = [residuals[trained] / max(residuals[untrained], ROUNDING**2) for residuals in group]
            room = [ratio for ratio, r in zip(ratios, group, strict=True) if r[untrained] > ROUNDING]
            found[str(reads)] |= {"trained_over_untrained": geometric_mean(ratios), "num_with_room": len(room)}
            found[str(reads)] |= {"trained_over_untrained_with_room": geometric_mean(room) if room else None}
        if trained in means:
            rivals = ("CG, equal passes", "Jacobi-CG, equal passes")
            wins = sum(residuals[trained] < min(residuals[name] for name in rivals) for residuals in group)
            found[str(reads)]["num_below_both_cg_at_equal_passes"] = wins
    return found


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """One line a matrix after 16 reads (or the number the view names), and the geometric means."""
    reads = int(view or READS[-1])
    rows = [row for row in result["rows"] if row["reads"] == reads]
    labels = [*rows[0]["residuals"]]
    lines = []
    for name in dict.fromkeys(row["matrix"] for row in rows):
        group = [row for row in rows if row["matrix"] == name]
        means = [geometric_mean([row["residuals"][label] for row in group]) for label in labels]
        lines.append([f"{name} ({group[0]['n']:,})", *(error_text(value) for value in means)])
    found = result["summary"][str(reads)]
    lines.append(["geometric mean", *(error_text(found["geometric_means"][label]) for label in labels)])
    if "trained_over_untrained" in found:
        for name, key in (
            ("all", "trained_over_untrained"),
            (f"above {ROUNDING:.0e} untrained", "trained_over_untrained_with_room"),
        ):
            ratio = "-" if found[key] is None else f"{found[key]:.2f}"
            lines.append([f"trained / untrained, {name}", ratio, *[""] * (len(labels) - 1)])
    return ["", *labels], lines


def caption(result: dict, view: str = "") -> str:
    """What the numbers are."""
    return (
        f"Relative residual of a Gaussian right-hand side on whole matrices after {view or READS[-1]} loops, "
        "geometric mean of "
        f"{result['config']['num_draws']} draws, float64"
    )
