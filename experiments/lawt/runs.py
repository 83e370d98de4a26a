"""What the tables of `lawt.py` train at each scale: named runs of the training program, kept as checkpoints and reused.

A run is a configuration of `rangeformer/pretrain/configs/` and changes to it by dotted names. Its checkpoint is trained
where it is missing, continued where it was interrupted, and refused where it is of another configuration.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import Any

from experiments.common.reporting import say
from rangeformer.baselines.lawt.decoding import Model
from rangeformer.baselines.lawt.generators import SPECTRAL_DISTRIBUTIONS
from rangeformer.baselines.lawt.symbols import TASK_NAMES
from rangeformer.models.checkpoint import load, read_card
from rangeformer.pretrain.__main__ import main as train
from rangeformer.pretrain.plan import Plan
from rangeformer.pretrain.resume import state_path
from rangeformer.pretrain.tasks.lawt import LawtTask

SCALES = ("smoke", "cpu", "gpu")
TRAINING_DISTRIBUTIONS = ("semicircle", "laplace", "abs_laplace", "marchenko_pastur")
_FREE = ("num_threads", "checkpoint_every", "device")  # how a result is reached, not which


@dataclass(frozen=True)
class Run:
    """One model to be trained.

    Attributes:
        name: Of its checkpoint.
        label: What tables call it.
        config: The configuration it starts from.
        changes: What it replaces there, by dotted name.
    """

    name: str
    label: str
    config: str
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """A run with its model and what its card says."""

    run: Run
    plan: Plan
    model: Model
    card: dict[str, Any]

    @property
    def num_examples(self) -> int:
        """Fresh examples that training saw."""
        return self._examples(self.card["run"]["num_steps"])

    @property
    def curve(self) -> list[tuple[int, float]]:
        """Examples seen and share right at 5 %, validation by validation."""
        return [(self._examples(row["step"]), row["right_0.05"]) for row in self.card["history"]]

    def _examples(self, steps: int) -> int:
        assert isinstance(self.plan.task, LawtTask)
        return self.plan.task.num_examples(steps, self.plan.run.num_steps) * self.plan.run.num_shards


def runs_of(table: str, scale: str) -> list[Run]:
    """What a table needs trained."""
    runs = _RUNS[table](scale)
    return [Run(run.name, run.label, run.config, {**_scaled(run, scale), **run.changes}) for run in runs]


def get(run: Run, folder: Path, *, threads: int | None, device: str) -> Trained:
    """The trained run, from its checkpoint or by training it now.

    Raises:
        ValueError: If the checkpoint there is of another configuration.
        KeyboardInterrupt: If training was stopped; it goes on where it was with the next call.
    """
    plan = Plan.from_file(run.config, run.changes)
    path = folder / f"lawt-{run.name}.safetensors"
    if not path.exists():
        say(f"training {run.name}: {plan.run.num_steps} steps")
        changed = [part for key, value in run.changes.items() for part in ("--set", _assignment(key, value))]
        options = ["--device", device, *(["--threads", str(threads)] if threads else [])]
        resume = ["--resume"] if state_path(path).exists() else []
        if (
            train(
                ["--config", run.config, "--out", str(path), *changed, *options, *resume],
                as_program=threads is not None,
            )
            != 0
        ):
            raise KeyboardInterrupt
    card = read_card(path)
    before, wanted = (
        _without_free(fields) for fields in (Plan.from_fields(card["training"]).as_fields(), plan.as_fields())
    )
    if before != wanted:
        raise ValueError(f"`--weights` holds {path.name} of another configuration; delete it or name another folder.")
    return Trained(run, plan, load(path), card)


def _assignment(key: str, value: Any) -> str:
    return f"{key.removeprefix('settings.')}={dumps(value)}"


def _without_free(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "run": {key: value for key, value in fields["run"].items() if key not in _FREE}}


def _model(**changes: Any) -> dict[str, Any]:
    return {f"settings.model.{key}": value for key, value in changes.items()}


def _source(**changes: Any) -> dict[str, Any]:
    return {f"settings.source.{key}": value for key, value in changes.items()}


def _task_run(task: str, label: str = "", suffix: str = "", **changes: Any) -> Run:
    """A run of one task; those without a configuration of their own start from that of the eigenvalues."""
    name, config = task.replace("_", "-"), _CONFIGS.get(task, "lawt-eigenvalues")
    return Run(name + suffix, label or name, config, {**_source(tasks=[task]), **changes})


def _suffix(label: str) -> str:
    return f"-{label.replace(', ', '-').replace(' ', '-').lower()}"


_CONFIGS = {task: f"lawt-{task.replace('_', '-')}" for task in ("transposition", "addition", "matrix_vector")}
_CONFIGS |= {"eigenvalues": "lawt-eigenvalues", "eigenvectors": "lawt-eigenvectors", "inversion": "lawt-inversion"}


def _eigenvalues(law: str = "semicircle", label: str = "") -> Run:
    return _task_run("eigenvalues", label or law, f"-{law}", **_source(laws=[law]))


def _encodings(scale: str) -> list[Run]:
    small = {} if scale == "gpu" else _source(rows=[3, 3])
    return [
        _task_run(
            "transposition",
            name,
            f"-{name}",
            **small,
            **_model(input_encoding=name, output_encoding=name),
            **({"run.num_steps": 5_000} if scale == "cpu" else {}),
        )
        for name in ("P10", "P1000", "B1999", "FP15")
    ]


def _tasks(scale: str) -> list[Run]:
    names = ("transposition", "addition", "matrix_vector") if scale == "cpu" else TASK_NAMES
    runs = [_eigenvalues(label="eigenvalues") if name == "eigenvalues" else _task_run(name) for name in names]
    if scale == "cpu":
        return [*runs, _eigenvalues(label="eigenvalues")]
    together = ["transposition", "addition", "matrix_vector", "eigenvalues"]
    return [*runs, Run("joint", "four tasks jointly", "lawt-eigenvalues", _source(tasks=together))]


def _ood(scale: str) -> list[Run]:
    return [_eigenvalues(law) for law in (SPECTRAL_DISTRIBUTIONS if scale == "gpu" else TRAINING_DISTRIBUTIONS)]


def _noise(scale: str) -> list[Run]:
    noisy = _source(input_noise=0.02)
    runs = [
        _eigenvalues(label="eigenvalues"),
        _task_run("eigenvalues", "eigenvalues, trained with noise", "-noisy", **_source(laws=["semicircle"]), **noisy),
        _task_run("addition", "addition"),
    ]
    if scale != "cpu":
        runs.append(_task_run("addition", "addition, trained with noise", "-noisy", **noisy))
    return runs


def _loops(scale: str) -> list[Run]:
    kinds = {
        "one layer": _model(encoder_layers=1),
        "four layers": _model(encoder_layers=4),
        "one layer, four plain loops": _model(encoder_layers=1, encoder_loops=4),
        "one layer, four gated loops": _model(encoder_layers=1, encoder_loops=4, loop="gated"),
        "one layer, up to six loops, learned halting": _model(encoder_layers=1, encoder_loops=6, loop="halting"),
        "LSTM": _model(kind="lstm", encoder_layers=2, decoder_layers=2),
        "GRU": _model(kind="gru", encoder_layers=2, decoder_layers=2),
    }
    # at equal steps, fewer than convergence takes: what is compared is the speed of learning
    short = {"run.num_steps": 5_000} if scale == "cpu" else {}
    return [_task_run("eigenvalues", label, _suffix(label), **changes, **short) for label, changes in kinds.items()]


def _beginnings(scale: str) -> list[Run]:
    no_rows, no_signs = {"settings.rows_from": []}, {"settings.signs_between": None}
    kinds = {"rows, then signs": {}, "rows only": no_signs, "signs only": no_rows, "neither": {**no_rows, **no_signs}}
    short = {}
    if scale == "cpu":  # two rows: the smallest sum of products
        short = {**_source(rows=[2, 2], columns=[5, 5]), "settings.batch_size": 16, "run.num_steps": 10_000}
        short |= {"settings.rows_from": [0.1], "settings.signs_between": [0.2, 0.5]}
    return [
        _task_run("matrix_vector", label, _suffix(label), **{**short, **changes}) for label, changes in kinds.items()
    ]


def _failure(scale: str) -> list[Run]:
    short = {"run.num_steps": 30_000} if scale == "cpu" else {}  # of 100,000
    return [_task_run(task, **short) for task in ("eigenvectors", "inversion")]


_RUNS = {
    "ceilings": lambda scale: [],
    "encodings": _encodings,
    "tasks": _tasks,
    "ood": _ood,
    "noise": _noise,
    "loops": _loops,
    "beginnings": _beginnings,
    "failure": _failure,
}

_SMOKE = {
    **_model(encoder_width=8, decoder_width=8, encoder_heads=2, decoder_heads=2, encoder_layers=1, decoder_layers=1),
    **_source(rows=[2, 2]),
    "settings.batch_size": 4,
    "settings.validation_size": 4,
    "run.num_steps": 2,
    "run.validate_every": 2,
}


def _paper(
    rows: int, layers: Sequence[int], steps: int, encodings: str, *, width: int = 512, rate: float = 1e-4
) -> dict:
    """One line of the paper's settings, but for the schedule, one cosine from the paper's peak, and how sums begin."""
    before, _, after = encodings.partition(" -> ")
    model = _model(
        encoder_layers=layers[0],
        decoder_layers=layers[1],
        encoder_width=width,
        decoder_width=width,
        encoder_heads=8,
        decoder_heads=8,
        input_encoding=before,
        output_encoding=after or before,
        num_positions=1024,
    )
    run = {"run.num_steps": steps, "run.learning_rate": rate, "run.warm_up": 0.02, "run.precision": "bfloat16"}
    often = {"run.validate_every": 5000, "run.checkpoint_every": 5000, "run.weight_average": 0.999}
    return {**model, **_source(rows=[rows, rows]), **run, **often, "settings.batch_size": 64}


_GPU = {
    "transposition": _paper(10, (1, 1), 50_000, "P1000", width=256),
    "addition": _paper(10, (2, 2), 300_000, "B1999", rate=5e-5),
    "matrix_vector": _paper(5, (2, 2), 200_000, "P1000"),
    "matrix_product": _paper(5, (1, 4), 300_000, "P1000", rate=5e-5),
    "eigenvalues": _paper(5, (6, 1), 625_000, "FP15 -> P1000"),
    "eigenvectors": _paper(5, (6, 1), 1_500_000, "FP15 -> P1000"),
    "inversion": _paper(5, (6, 1), 4_000_000, "FP15 -> P1000"),
    "singular_values": _paper(4, (4, 4), 600_000, "P1000"),
    "svd": _paper(4, (6, 6), 1_500_000, "P1000"),
}


def _scaled(run: Run, scale: str) -> dict[str, Any]:
    """What the scale changes in a run; the run's own changes go before."""
    if scale == "smoke":
        return _SMOKE
    tasks = run.changes["settings.source.tasks"]
    return _GPU[tasks[0] if len(tasks) == 1 else "eigenvalues"] if scale == "gpu" else {}
