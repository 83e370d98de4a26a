"""Ten families x sizes x draws x operations x columns: relative errors, reported failures, reads."""

import math
from collections.abc import Sequence
from statistics import median

import torch

from experiments.common.contenders import OPERATIONS, Contender, Direct, Ours, Paper, Price, Problem, problem
from experiments.common.measures import error_text, quartiles, relative_error
from experiments.common.reporting import progress
from experiments.ood.families import FAMILIES, REAL, Source, draw_family

WELL_POSED = 1e8  # condition numbers below it
SMALL = 50


def problems(
    n: int, num_draws: int, source: Source, families: Sequence[str] = tuple(FAMILIES)
) -> list[tuple[int, Problem]]:
    """Every draw of every family at one size; a family is left out where the folder has no matrix that large."""
    found = []
    for family in families:
        if family in REAL and source.real and source.real[-1].num_rows < n:
            continue
        for seed in range(num_draws):
            generator = torch.Generator().manual_seed(1000 * seed + n)
            found.append((seed, problem(family, draw_family(family, n, generator, source), generator)))
    return found


def measure(
    columns: Sequence[Contender],
    sizes: Sequence[int],
    num_draws: int,
    source: Source,
    operations: Sequence[str] = OPERATIONS,
) -> list[dict]:
    """One cell for every size, family, operation and column, with the errors of its draws."""
    cells: dict[tuple, dict] = {}
    with progress("Families", len(sizes) * len(FAMILIES) * num_draws) as advance:
        for n in sizes:
            for seed, case in problems(n, num_draws, source):
                for operation in operations:
                    for label, found in answers(columns, case, operation).items():
                        key = (operation, n, case.family, label)
                        cell = cells.setdefault(key, dict(zip(_KEYS, key, strict=True)) | _empty())
                        _add(cell, found, is_well_posed(case))
                advance(f"{case.family}, n = {n}, draw {seed}")
    for cell in cells.values():
        cell |= quartiles(cell["errors"]) if cell["errors"] else {"lower": None, "median": None, "upper": None}
        cell["errors"] = [error if math.isfinite(error) else None for error in cell["errors"]]
    return list(cells.values())


def answers(columns: Sequence[Contender], case: Problem, operation: str) -> dict[str, dict]:
    """What every column says of one problem; the classical ones pay what the last of ours that answered has read."""
    price, found = Price(), {}
    for column in columns:
        answer = column.answer(case, operation, price)
        if isinstance(column, Ours) and answer.price.num_passes:
            price = answer.price
        truth = case.truth.get(operation)
        has_error = answer.value is not None and truth is not None
        found[column.label] = {
            "can_run": answer.value is not None,
            "error": relative_error(answer.value, truth) if has_error else None,
            "reported": answer.reported,
            "num_passes": answer.price.num_passes,
            "num_matvecs": answer.price.num_matvecs,
        }
    return found


def is_well_posed(case: Problem) -> bool:
    """Not too ill conditioned for float64; the zero matrix counts, because its eigenvalues exist."""
    return case.family == "zero" or case.cond < WELL_POSED


_KEYS = ("operation", "n", "family", "column")


def _empty() -> dict:
    counts = ("num_draws", "num_ill_posed", "num_reported", "num_passes", "num_matvecs")
    return {"errors": [], "can_run": True, **dict.fromkeys(counts, 0)}


def _add(cell: dict, found: dict, well_posed: bool) -> None:
    cell["num_draws"] += 1
    cell["num_reported"] += found["reported"]
    cell["can_run"] = cell["can_run"] and found["can_run"]
    cell["num_ill_posed"] += not well_posed
    for name in ("num_passes", "num_matvecs"):  # the largest of the draws
        cell[name] = max(cell[name], found[name])
    if well_posed and found["error"] is not None:
        cell["errors"].append(found["error"])


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """Without a view: a column for every size, a line for every operation and contender.

    With a view such as "solve-50" (operation and size): a line for every family.
    """
    cells = result["cells"]
    labels = [*dict.fromkeys(cell["column"] for cell in cells)]
    if view:
        operation, n = view.rsplit("-", 1)
        chosen = [cell for cell in cells if cell["operation"] == operation and cell["n"] == int(n)]
        names = [*dict.fromkeys(cell["family"] for cell in chosen)]
        return ["", *labels], [[name, *(_cell_text(_find(chosen, name, label)) for label in labels)] for name in names]
    sizes = [*dict.fromkeys(cell["n"] for cell in cells)]
    operations = dict.fromkeys(cell["operation"] for cell in cells)
    rows = [
        [f"{operation}: {label}", *texts]
        for operation in operations
        for label in labels
        if any(texts := [_summary_text(cells, operation, n, label) for n in sizes])
    ]
    return ["", *(f"n = {n:,}" for n in sizes)], rows


def medians(cells: Sequence[dict], operation: str, n: int, column: str) -> dict[str, float]:
    """Each family's median error of a column, infinite where the median draw has no answer.

    Zero has none but by report.
    """
    chosen = [c for c in cells if (c["operation"], c["n"], c["column"]) == (operation, n, column) and c["errors"]]
    return {c["family"]: math.inf if c["median"] is None else c["median"] for c in chosen if c["family"] != "zero"}


def _find(cells: Sequence[dict], family: str, label: str) -> dict:
    return next(cell for cell in cells if (cell["family"], cell["column"]) == (family, label))


def _cell_text(cell: dict) -> str:
    """Median error, and how many draws were reported as failures."""
    if not cell["can_run"]:
        return "cannot run" if cell["column"].startswith("paper") else ""
    reported = f"{cell['num_reported']}/{cell['num_draws']} reported" if cell["num_reported"] else ""
    if not cell["errors"]:
        return reported or "no answer exists, none reported"
    return f"{error_text(cell['median'])}{' (' + reported + ')' if reported else ''}"


def _summary_text(cells: Sequence[dict], operation: str, n: int, label: str) -> str:
    """Median over the families of their medians, and the worst family's.

    Nothing where the column has no such operation.
    """
    found = sorted(medians(cells, operation, n, label).values())
    if not found:
        return "cannot run" if label.startswith("paper") else ""
    middle, worst = (error_text(x if math.isfinite(x) else None) for x in (median(found), found[-1]))
    return f"{middle} ({worst})"


def gates(cells: Sequence[dict], ours: str, pure: str, paper: Sequence[str]) -> dict:
    """What has to be shown: the worst family's median of ours, and the pure model's over the paper's best."""
    sizes = [*dict.fromkeys(cell["n"] for cell in cells)]
    found: dict = {"worst_family": {}, "pure_over_paper": {}}
    for operation in OPERATIONS:
        for n in sizes:
            by_family = medians(cells, operation, n, ours)
            if by_family:
                worst = max(by_family, key=lambda family: by_family[family])
                value = by_family[worst]
                found["worst_family"][f"{operation}-{n}"] = {
                    "family": worst,
                    "median": value if math.isfinite(value) else None,
                }
            rivals = [[*medians(cells, operation, n, name).values()] for name in paper]
            own = [*medians(cells, operation, n, pure).values()]
            if own and all(rivals):
                ratio = median(own) / min(median(values) for values in rivals)
                found["pure_over_paper"][f"{operation}-{n}"] = ratio if math.isfinite(ratio) else None
    return found


def kinds_of_column(columns: Sequence[Contender]) -> dict[str, str]:
    """What each column is, for pictures."""

    def kind(column: Contender) -> str:
        if isinstance(column, Paper):
            return "paper"
        return "ours" if isinstance(column, Ours) else "direct" if isinstance(column, Direct) else "classical"

    return {column.label: kind(column) for column in columns}


def caption(result: dict, view: str = "") -> str:
    """What the numbers are."""
    config = result["config"]
    operation, _, n = view.rpartition("-")
    what = f"{operation}, n = {n}: median relative error" if view else "Median over families, worst family in brackets"
    return (
        f"{what}; {config['num_draws']} draws, float64, ours at {config['num_loops']} loops, real families from "
        f"{result['source']}"
    )
