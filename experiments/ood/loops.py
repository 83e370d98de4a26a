"""Error against the number of loops, up to four times the trained number; how often more loops make it worse."""

import math
from collections.abc import Sequence

import torch

from experiments.common.contenders import Contender, Ours
from experiments.common.measures import error_text, quartiles
from experiments.common.reporting import progress
from experiments.ood.families import Source
from experiments.ood.suite import answers, is_well_posed, problems
from rangeformer.models.looped_model import LoopedModel

OPERATIONS = ("solve", "eigenvalues", "logdet")
_SLACK = 1.1  # an error may wander by a tenth
_ROUNDING = 10  # and by that many times cond x eps, below which nothing can be told apart


def grid(trained: int) -> list[int]:
    """1, 2, 4, ... up to the trained number T, then 1.5, 2, 3 and 4 T."""
    powers = [2**j for j in range(trained.bit_length()) if 2**j < trained]
    return [*powers, *(int(factor * trained) for factor in (1, 1.5, 2, 3, 4))]


def measure(models: dict[str, LoopedModel], sizes: Sequence[int], num_draws: int, source: Source) -> list[dict]:
    """One case for every model, operation and problem: its errors along the grid of loops."""
    cases = []
    with progress("Loops", len(sizes) * len(models)) as advance:
        for n in sizes:
            drawn = [(seed, case) for seed, case in problems(n, num_draws, source) if case.family != "zero"]
            for label, model in models.items():
                trained = model.config.num_loops
                columns: list[Contender] = [Ours(str(loops), model, loops) for loops in grid(trained)]
                for seed, case in drawn:
                    if not is_well_posed(case):
                        continue
                    for operation in OPERATIONS:
                        errors = [found["error"] for found in answers(columns, case, operation).values()]
                        floor = _ROUNDING * torch.finfo(torch.float64).eps * case.cond
                        cases.append(
                            {"model": label, "operation": operation, "n": n, "family": case.family, "draw": seed}
                            | {"trained": trained, "loops": grid(trained), "floor": floor, "errors": errors}
                        )
                advance(f"{label}, n = {n}")
    return cases


def rises(case: dict, start: int = 1) -> bool:
    """Whether some step of the grid from `start` loops on made the error larger than slack and rounding explain."""
    errors = [error for loops, error in zip(case["loops"], case["errors"], strict=True) if loops >= start]
    limits = [_SLACK * error + case["floor"] for error in errors[:-1]]
    return any(later > limit for later, limit in zip(errors[1:], limits, strict=True))


def summary(cases: list[dict]) -> list[dict]:
    """Quartiles over families and draws for every number of loops, and the shares of cases whose error never rises."""
    found = []
    keys = dict.fromkeys((case["model"], case["operation"], case["n"]) for case in cases)
    for model, operation, n in keys:
        group = [case for case in cases if (case["model"], case["operation"], case["n"]) == (model, operation, n)]
        trained, loops = group[0]["trained"], group[0]["loops"]
        curves = [quartiles([case["errors"][i] for case in group]) for i in range(len(loops))]
        shares = {
            f"never_rises_from_{name}": sum(not rises(case, start) for case in group) / len(group)
            for name, start in (("one", 1), ("trained", trained))
        }
        found.append(
            {"model": model, "operation": operation, "n": n, "trained": trained, "num_cases": len(group)}
            | shares
            | {"loops": loops, "quartiles": curves}
        )
    return found


def worst_offenders(cases: list[dict], limit: int = 20) -> list[dict]:
    """Cases that rise from the trained number on, by how much, so that a reader can look at them."""

    def factor(case: dict) -> float:
        later = [e for loops, e in zip(case["loops"], case["errors"], strict=True) if loops >= case["trained"]]
        ratio = max(later) / max(later[0], case["floor"])
        return ratio if math.isfinite(ratio) else 1e300

    bad = sorted((case for case in cases if rises(case, case["trained"])), key=factor, reverse=True)
    names = ("model", "operation", "n", "family", "draw")
    return [{**{name: case[name] for name in names}, "factor": factor(case)} for case in bad[:limit]]


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """One line for every model, operation and size; a column for 1 loop, T/4, T, 2 T and 4 T."""
    header = ["", "1 loop", "T / 4", "T", "2 T", "4 T", "never rises", "nor beyond T", "cases"]
    rows = []
    for item in result["summary"]:
        trained = item["trained"]
        wanted = (1, max(1, trained // 4), trained, 2 * trained, 4 * trained)
        medians = dict(zip(item["loops"], (q["median"] for q in item["quartiles"]), strict=True))
        shares = [f"{item[f'never_rises_from_{name}']:.0%}" for name in ("one", "trained")]
        label = f"{item['model']}, {item['operation']}, n = {item['n']}"
        rows.append([label, *(error_text(medians.get(w)) for w in wanted), *shares, str(item["num_cases"])])
    return header, rows


def caption(result: dict, view: str = "") -> str:
    """What the numbers are."""
    return (
        f"Median relative error over nine families (zero left out) and {result['config']['num_draws']} draws against "
        "loops; "
        "T is the trained number; shares of cases whose error never rises by more than a tenth and rounding"
    )
