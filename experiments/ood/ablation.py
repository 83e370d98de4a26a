"""The paper's ablation: every checkpoint on the ten families at n = 20 and on its own training distributions.

A step of the ablation is a file `ladder-<k>.safetensors` whose card names it ("rung") and the distributions it was
trained on ("laws"). Projection, linear attention, looping and structured data are switched on in turn.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.common.contenders import Paper, problem
from experiments.common.measures import error_text, quartiles
from experiments.common.reporting import progress
from experiments.ood.families import Source
from experiments.ood.suite import answers, is_well_posed, problems
from rangeformer.baselines import PaperRangeFormer
from rangeformer.distributions import PAPER_DISTRIBUTIONS
from rangeformer.models.checkpoint import load, read_card
from rangeformer.pretrain.operations import draw_operations

SIZE = 20
_NUM_FAMILIAR = 64  # matrices of the training distributions


def steps(weights: Path) -> list[tuple[str, PaperRangeFormer]]:
    """Name and model of every step, in the order of their files."""
    files = sorted(weights.glob("ladder-*.safetensors"))
    return [(_name(read_card(file), file.stem), load(file)) for file in files]


def _name(card: dict, stem: str) -> str:
    return str(card.get("rung", stem))


def measure(models: Sequence[tuple[str, PaperRangeFormer]], num_draws: int, source: Source) -> list[dict]:
    """One row for every step: quartiles over families and draws, each family's median.

    The error on the paper's training distributions.
    """
    drawn = [case for _, case in problems(SIZE, num_draws, source) if case.family != "zero" and is_well_posed(case)]
    generator = torch.Generator().manual_seed(0)
    familiar = draw_operations(PAPER_DISTRIBUTIONS, SIZE, _NUM_FAMILIAR, generator=generator).matrix
    known = [problem("training distributions", matrix, generator) for matrix in familiar]
    rows = []
    with progress("Ladder", len(models)) as advance:
        for name, model in models:
            operation = model.config.operation
            column = Paper(name, {operation: model})

            def errors(cases: list, column: Paper = column, operation: str = operation) -> list[float]:
                return [answers([column], case, operation)[column.label]["error"] for case in cases]

            families = dict.fromkeys(case.family for case in drawn)
            rows.append(
                {
                    "rung": name,
                    "operation": operation,
                    "num_parameters": sum(p.numel() for p in model.parameters()),
                    "training_laws": quartiles(errors(known)),
                    "out_of_distribution": quartiles(errors(drawn)),
                    "families": {f: quartiles(errors([case for case in drawn if case.family == f])) for f in families},
                }
            )
            advance(name)
    return rows


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """One line for every step: parameters, error on the training distributions, quartiles out of distribution.

    The best and the worst family.
    """
    header = [
        "",
        "operation",
        "parameters",
        "training distributions",
        "out of distribution",
        "quartiles",
        "best family",
        "worst family",
    ]
    rows = []
    for row in result["rows"]:
        outside = row["out_of_distribution"]
        medians = [(q["median"] if q["median"] is not None else float("inf"), f) for f, q in row["families"].items()]
        best, worst = (f"{f}, {error_text(value)}" for value, f in (min(medians), max(medians)))
        spread = f"{error_text(outside['lower'])} to {error_text(outside['upper'])}"
        known = error_text(row["training_laws"]["median"])
        cells = [
            row["operation"],
            f"{row['num_parameters']:,}",
            known,
            error_text(outside["median"]),
            spread,
            best,
            worst,
        ]
        rows.append([row["rung"], *cells])
    return header, rows


def caption(result: dict, view: str = "") -> str:
    """What the numbers are."""
    return (
        f"The ablation at n = {SIZE}: median relative error, {result['config']['num_draws']} draws a family, "
        "zero left out"
    )
