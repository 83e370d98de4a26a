"""The training loop, whatever the task.

Start untrained, validate on other distributions, keep the best, never end below the start.

Every (seed, step, shard) has a generator of its own, so a run can be cut anywhere, continued, and spread over processes
without changing what it computes, up to the order in which the shards' gradients are added.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rangeformer.pretrain.distributed import Processes, check_shards
from rangeformer.pretrain.interrupts import StopRequest, stop_requests
from rangeformer.pretrain.plan import Plan
from rangeformer.pretrain.resume import Saved, write_state
from rangeformer.pretrain.seeding import batch_generator, weights_generator
from rangeformer.pretrain.state import Record, Weights

Report = Callable[[dict[str, Any]], None]
_MEMORY = 0.98  # of the running mean of the losses


@dataclass
class TrainingResult:
    """What came out.

    Attributes:
        model: The best model, the untrained one if nothing beat it; the same in every process.
        record: Figures, history and counts.
        finished: False if the run was asked to stop; its state is then on disk.
        num_processes: How many took part.
    """

    model: nn.Module
    record: Record
    finished: bool
    num_processes: int


def pretrain(
    plan: Plan,
    *,
    out: Path | None = None,
    saved: Saved | None = None,
    report: Report | None = None,
    processes: Processes | None = None,
) -> TrainingResult:
    """Train from the untrained model, keep the best, never end below the start.

    Args:
        plan: The task and how to train it.
        out: Weights file that will be written in the end: the state of training is kept beside it, and SIGTERM or
            Ctrl-C stops the run after a step with its state written. Default: nothing is written, signals are left
            alone.
        saved: State to go on from, of the same plan (`resume.read_state`).
        report: Called with a dict in the first process, after every step ("step", "progress", "losses") and every
            validation ("figures" beside them).
        processes: Those that share the work (`distributed.started`). Default: this one alone.

    Returns:
        The best model, in evaluation mode on the CPU, and what there is to say about it.

    Raises:
        ValueError: If there are more processes than shards, or the task's figures lack its objective.

    Example:
        >>> from rangeformer.pretrain import Plan, pretrain
        >>> plan = Plan.from_file("features", {"settings.validation_size": 64, "run.num_steps": 100})
        >>> result = pretrain(plan)  # doctest: +SKIP
    """
    processes = Processes(device=torch.device(plan.run.device)) if processes is None else processes
    check_shards(plan.run.num_shards, processes.size)
    with nullcontext(StopRequest()) if out is None else stop_requests() as request:
        return _Training(plan, processes, out, report or (lambda message: None), saved).run(request)


class _Training:
    """One run in one process."""

    def __init__(self, plan: Plan, processes: Processes, out: Path | None, report: Report, saved: Saved | None):
        self.plan, self.task, self.config = plan, plan.task, plan.run
        self.processes, self.out, self.report = processes, out, report
        model = self.task.build(weights_generator(self.config.seed)).to(processes.device).train()
        self.weights = Weights.start(model, self.config.weight_decay)
        if self.config.precision == "bfloat16" and self.task.mixed_precision:
            # only `forward` of the model being trained: the average is validated, and losses are taken, as they are
            model.forward = torch.autocast(processes.device.type, torch.bfloat16)(model.forward)
        self.validation_set = self.task.validation_set() if processes.first else None
        self.started = time.monotonic()
        if saved is None:
            self.record = self._first_record()
            self._write_state()
        else:
            self.weights.restore(saved.tensors)
            self.record = saved.record
        self.minutes_before = self.record.minutes
        processes.wait()

    def run(self, request: StopRequest) -> TrainingResult:
        """Step until a limit is reached or somebody asks to stop."""
        record, config = self.record, self.config
        stopped = False
        while record.progress < 1 and not stopped:
            stopped = self._step(request)
            if record.step % config.validate_every == 0 or record.progress >= 1:
                self._validate_average()
            if stopped or record.step % config.checkpoint_every == 0:
                self._write_state()
        if not stopped:
            self._finish()
        best = self.weights.best
        for value in best.state_dict().values():
            self.processes.from_first_(value)
        self.record = self.processes.from_first(record)
        return TrainingResult(best.to("cpu"), self.record, not stopped, self.processes.size)

    def _step(self, request: StopRequest) -> bool:
        """One optimiser step over all shards; returns whether some process was asked to stop."""
        record, config, trained = self.record, self.config, self.weights.trained
        for group in self.weights.optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_share(
                record.progress, config.warm_up, config.final_learning_rate
            )
        self.weights.optimizer.zero_grad(set_to_none=True)
        loss, parts, num_failed = self._backward()
        # one vector holds every gradient, and what the processes must agree on
        told = [loss, float(num_failed), float(request.made), self._minutes() if self.processes.first else 0.0]
        flat = torch.cat([*(_gradient(p).flatten() for p in trained), trained[0].new_tensor(told)])
        self.processes.sum_(flat)
        loss, num_failed, stop, minutes = flat[-len(told) :].tolist()
        gradients = (flat[: -len(told)] / config.num_shards).split([p.numel() for p in trained])
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter)
        norm = torch.nn.utils.clip_grad_norm_(trained, config.max_gradient_norm)
        record.step += 1
        if num_failed == 0 and math.isfinite(norm.item()):
            self.weights.optimizer.step()
            self.weights.update_average(min(config.weight_average, record.step / (record.step + 10)))
            self._note_losses({"loss": loss / config.num_shards, **parts})
        else:
            record.num_skipped += 1
        record.minutes = minutes
        record.progress = record.step / config.num_steps
        if config.max_minutes is not None:
            record.progress = max(record.progress, minutes / config.max_minutes)
        record.progress = min(record.progress, 1.0)
        self._tell({"step": record.step, "progress": record.progress, "losses": record.losses})
        return stop > 0

    def _backward(self) -> tuple[float, dict[str, float], int]:
        """Sum of this process's losses, mean of their parts, and how many of its shards failed; gradients add up."""
        record, config, device = self.record, self.config, self.processes.device
        total, sums, num_failed = 0.0, {}, 0
        shards = self.processes.own(config.num_shards)
        for shard in shards:
            generator = batch_generator(config.seed, record.step, shard, device)
            try:
                loss, parts = self.task.loss(self.weights.model, self.task.draw(generator, record.progress))
            except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
                # the same draw would stop every attempt to resume
                num_failed += 1
                continue
            if not torch.isfinite(loss):
                num_failed += 1
                continue
            loss.backward()
            total += loss.item()
            sums |= {name: sums.get(name, 0.0) + value / len(shards) for name, value in parts.items()}
        return total, sums, num_failed

    def _note_losses(self, losses: dict[str, float]) -> None:
        running = self.record.losses
        for name, value in losses.items():
            running[name] = _MEMORY * running[name] + (1 - _MEMORY) * value if name in running else value

    def _first_record(self) -> Record:
        figures, table = self._validate(self.weights.average)
        record = Record(figures, table, figures, table, history=[{"step": 0, **figures}])
        self._tell({"step": 0, "progress": 0.0, "losses": {}, "figures": figures})
        return record

    def _validate(self, model: nn.Module) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Figures and table in the first process, nothing in the others."""
        if not self.processes.first:
            return {}, []
        with torch.no_grad():
            figures, table = self.task.validate(model, self.validation_set)
        if self.task.objective not in figures:
            raise ValueError(
                f"The task's objective {self.task.objective!r} is not among its figures {sorted(figures)}."
            )
        return figures, table

    def _validate_average(self) -> None:
        """Measure the average; keep it if it is the best so far."""
        record = self.record
        figures, table = self._validate(self.weights.average)
        if not self.processes.first:
            return
        record.history.append({"step": record.step, **record.losses, **figures})
        self._tell({"step": record.step, "progress": record.progress, "losses": record.losses, "figures": figures})
        value, best = figures[self.task.objective], record.best[self.task.objective]
        if math.isfinite(value) and not value >= best:  # a best that is not finite is beaten by any that is
            record.improved, record.best, record.best_table = True, figures, table
            self.weights.keep()

    def _finish(self) -> None:
        """Let the task mend what got worse, and measure again what it changed."""
        record, best = self.record, self.weights.best
        if self.processes.first and self.task.finish(best, record.untrained, record.best):
            record.best, record.best_table = self._validate(best)
            record.history.append({"step": record.step, "mended": True, **record.best})
        record.minutes = self._minutes()

    def _write_state(self) -> None:
        if self.out is not None and self.processes.first:
            write_state(self.out, self.plan, self.record, self.weights)

    def _minutes(self) -> float:
        return self.minutes_before + (time.monotonic() - self.started) / 60

    def _tell(self, message: dict[str, Any]) -> None:
        if self.processes.first:
            self.report(message)


def learning_rate_share(progress: float, warm_up: float, final: float) -> float:
    """Share of the peak: linear warm-up, then a cosine that ends at `final`."""
    if progress < warm_up:
        return (progress + 1e-3) / (warm_up + 1e-3)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Zero where no shard of this process reached the parameter; others' may have."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
