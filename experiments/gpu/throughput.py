"""Pretraining: matrices a second of every shipped task, with the share that drawing them takes."""

import torch

from experiments.gpu.clock import timed
from experiments.gpu.part import Request
from rangeformer.pretrain import Plan

CONFIGS = ("galerkin", "pure", "features", "paper-solve")
_NUM_STEPS = {True: 1, False: 8}


def measure(request: Request) -> dict:
    """One task after the other at its shipped settings; a step is a draw, a forward and a backward pass."""
    rows, complete = [], True
    for name in CONFIGS:
        if request.seconds_left < 0:
            complete = False
            break
        rows.append({"config": name, **_measure(name, request)})
    return {"rows": rows, "complete": complete}


def _measure(name: str, request: Request) -> dict:
    plan, device = Plan.from_file(name), request.device
    model = plan.task.build(torch.Generator().manual_seed(request.seed)).to(device).train()
    count, late = _NUM_STEPS[request.smoke], 0.9  # late in the curriculum all sizes are drawn

    def draw_all() -> list:
        # the same batches in every repetition
        return [plan.task.draw(torch.Generator(device).manual_seed(step), late) for step in range(count)]

    def step_all() -> None:
        for batch in draw_all():
            model.zero_grad(set_to_none=True)
            plan.task.loss(model, batch)[0].backward()

    runs = 1 if request.smoke else 3
    draws = timed(draw_all, device, num_runs=runs, num_warm_up=0 if request.smoke else 1)
    steps = timed(step_all, device, num_runs=runs, num_warm_up=0 if request.smoke else 1)
    num_matrices = count * int(getattr(plan.task, "batch_size"))  # noqa: B009 - a setting that every shipped task has
    return {
        "num_matrices": num_matrices,
        "matrices_per_second": num_matrices / steps.median,
        "share_of_drawing": min(1.0, draws.median / steps.median),
        "draws": draws.as_dict(),
        "steps": steps.as_dict(),
    }
