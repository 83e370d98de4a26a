"""The looped members out of distribution, on the device and in its single precision.

Errors against the exact float64 answers.
"""

from dataclasses import replace

import torch

from experiments.common.contenders import Ours, Price, Problem
from experiments.common.measures import quartiles, relative_error
from experiments.common.models import GALERKIN, PURE, members
from experiments.gpu.clock import timed
from experiments.gpu.part import Request
from experiments.ood.families import Source
from experiments.ood.suite import is_well_posed, problems

OPERATIONS = ("solve", "eigenvalues", "logdet")


def measure(request: Request) -> dict:
    """Quartiles over ten families of the error, and the time of one answer."""
    models = members("pure", "galerkin", tiny=request.smoke)
    sizes = (20,) if request.smoke else (200, 1000) if request.device.type == "cuda" else (200,)
    rows, complete = [], True
    for n in sizes:
        cases = [case for _, case in problems(n, 1, Source()) if is_well_posed(case)]
        for label in (PURE, GALERKIN):
            if request.seconds_left < 0:
                complete = False
                break
            column = Ours(label, models[label].to(request.device))
            for operation in OPERATIONS:
                asked = [case for case in cases if operation in case.truth]
                errors = [_error(column, case, operation, request.device) for case in asked]
                moved = _moved(asked[0], request.device)
                time = timed(lambda c=column, m=moved, o=operation: c.answer(m, o, Price()), request.device, num_runs=3)
                rows.append(
                    {"n": n, "model": label, "operation": operation, "time": time.as_dict(), "num_cases": len(asked)}
                    | quartiles(errors)
                )
            models[label].to("cpu")
    return {"rows": rows, "complete": complete}


def _error(column: Ours, case: Problem, operation: str, device: torch.device) -> float:
    answer = column.answer(_moved(case, device), operation, Price())
    return float("inf") if answer.value is None else relative_error(answer.value.cpu().double(), case.truth[operation])


def _moved(case: Problem, device: torch.device) -> Problem:
    matrix, rhs, block = (part.to(device, torch.float32) for part in (case.matrix, case.rhs, case.block))
    return replace(case, matrix=matrix, rhs=rhs, block=block)
