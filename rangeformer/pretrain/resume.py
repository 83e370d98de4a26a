"""The state of training on disk, so that a killed run goes on as if nothing had happened.

Beside `weights.safetensors` lie `weights.resume-<step>.safetensors`, every tensor of the state, and
`weights.resume.json`, every number of it, the plan, and the name and digest of the tensors' file. Renaming the JSON
file into place is the moment at which a checkpoint exists: a kill at any time leaves the last one whole. No random
state is stored, since every batch has its own generator (`seeding.py`).
"""

import dataclasses
import glob
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rangeformer.models.checkpoint import write_atomically
from rangeformer.pretrain.plan import Plan
from rangeformer.pretrain.state import Record, Weights

FORMAT = "rangeformer-training-1"
# what changes how a result is reached, not which: a resumed run may change these
_FREE = ("num_threads", "checkpoint_every")


@dataclass(frozen=True)
class Saved:
    """A checkpoint of a run, read.

    Attributes:
        record: Its numbers.
        tensors: Its tensors.
    """

    record: Record
    tensors: dict[str, Tensor]


def state_path(out: Path) -> Path:
    """Where the state of the run that will write `out` lies."""
    return out.with_name(f"{out.stem}.resume.json")


def write_state(out: Path, plan: Plan, record: Record, weights: Weights) -> None:
    """Write a checkpoint of the whole run; then remove the one before it."""
    from safetensors.torch import save as serialise

    raw = serialise(weights.tensors())
    tensors_path = out.with_name(f"{out.stem}.resume-{record.step:08d}.safetensors")
    state = {
        "format": FORMAT,
        "plan": plan.as_fields(),
        "tensors": tensors_path.name,
        "sha256": hashlib.sha256(raw).hexdigest(),
        "record": dataclasses.asdict(record),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(tensors_path, raw)
    write_atomically(state_path(out), (json.dumps(state, indent=1) + "\n").encode())
    _remove_tensors(out, but=tensors_path)


def read_state(out: Path, plan: Plan) -> Saved:
    """Read the checkpoint of the run that will write `out`.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is of another plan, or damaged.
    """
    from safetensors.torch import load as parse

    path = state_path(out)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no state to resume from: no file {str(path)!r}. A run that has finished leaves none; leave out "
            "--resume to start one."
        )
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        found, digest, tensors_path = state["format"], state["sha256"], path.with_name(state["tensors"])
        saved, numbers = dict(state["plan"]), Record(**state["record"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, f"it is not the state of a run ({error})") from error
    if found != FORMAT:
        raise _damaged(path, f"its format is {found!r}, this version reads {FORMAT!r}")
    _check_same_plan(path, _completed(saved, plan), plan.as_fields())
    raw = tensors_path.read_bytes() if tensors_path.is_file() else b""
    if hashlib.sha256(raw).hexdigest() != digest:
        raise _damaged(tensors_path, "it is missing, truncated or replaced")
    return Saved(numbers, parse(raw))


def check_no_state(out: Path) -> None:
    """Refuse to start a run over the state of an unfinished one."""
    if state_path(out).exists():
        raise ValueError(
            f"An unfinished run has left its state in {str(state_path(out))!r}. Continue it with --resume, or delete "
            "that file to start anew."
        )


def remove_state(out: Path) -> None:
    """Remove the state, once what it was for is written."""
    state_path(out).unlink(missing_ok=True)
    _remove_tensors(out)


def _remove_tensors(out: Path, but: Path | None = None) -> None:
    """Remove older tensors, and what a kill in the middle of writing left of some."""
    for path in out.parent.glob(f"{glob.escape(out.stem)}.resume*"):
        if path not in (but, state_path(out)):
            path.unlink(missing_ok=True)


def _completed(saved: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """A saved plan with the defaults of what a later version has added, if it is of the same task."""
    if saved.get("task") != plan.name:
        return saved
    return Plan.from_fields(saved, tasks={plan.name: type(plan.task)}).as_fields()


def _check_same_plan(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    before, after = _flat(saved), _flat(wanted)
    free = {f"run.{name}" for name in _FREE}
    changed = sorted(k for k in {*before, *after} - free if before.get(k) != after.get(k))
    if changed:
        listed = "; ".join(f"{k}: {before.get(k)!r} there, {after.get(k)!r} here" for k in changed)
        raise ValueError(
            f"Cannot resume from {str(path)!r}: that run was configured otherwise ({listed}). Use its configuration, "
            "or start a run with another --out."
        )


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted names."""
    found: dict[str, Any] = {}
    for key, value in fields.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(f"Cannot resume from {str(path)!r}: {why}. Delete the state and start the run anew.")
