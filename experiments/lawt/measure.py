"""What the tables of `lawt.py` measure: every function returns views, each with its columns and rows of plain numbers.

A share is a number in [0, 1] or None where there is none; rows name what they are about under "label".
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from experiments.lawt.runs import Trained
from experiments.lawt.views import (
    CONDITIONING,
    RIGHT,
    Budget,
    Row,
    by_condition,
    checks_view,
    encoding_views,
    error_views,
    share,
    shares,
    view,
)
from rangeformer.baselines.lawt import TASKS, Problems, Scores, Source, draw_problems, evaluate, rounding_ceiling
from rangeformer.baselines.lawt.generators import SPECTRAL_DISTRIBUTIONS
from rangeformer.baselines.lawt.metrics import TOLERANCES, errors
from rangeformer.baselines.lawt.tasks import answer

_SEED = 20_251  # of the test examples; training and validation have others
_NOISES = (0.0, 0.01, 0.02, 0.05)


def ceilings(trained: Sequence[Trained], budget: Budget) -> dict[str, Any]:
    """What needs no model: the encodings, what rounding leaves of exact answers, and what the paper's error accepts."""
    return {**encoding_views(budget), **error_views(budget)}


def encodings(trained: Sequence[Trained], budget: Budget) -> dict[str, Any]:
    """The same training in each encoding, their sizes, and the ceilings of every task."""
    caption = f"Transposition, {_size(trained)}, trained in each encoding"
    return {"trained": _accuracies(trained, budget, caption), **encoding_views(budget)}


def tasks(trained: Sequence[Trained], budget: Budget) -> dict[str, Any]:
    """Every trained task: shares right beside what rounding alone leaves, and checks that the paper's error hides."""
    views = {"trained": _accuracies(trained, budget, "Tasks, as the configurations train them")}
    found = [(task.replace("_", " "), s) for one in trained for task, s in _by_task(one, budget.num_test).items()]
    if hidden := [(label, scores) for label, scores in found if scores.checks]:
        views["checks"] = checks_view("What the paper's error does not ask: share of answers below 5 %", hidden)
    return views


def ood(trained: Sequence[Trained], budget: Budget) -> dict[str, Any]:
    """Every training distribution against all seven distributions of the eigenvalues."""
    titles = {law: law.replace("_", " ") for law in SPECTRAL_DISTRIBUTIONS}
    views = {}
    for tolerance in (0.05, 0.02):
        rows = []
        for one in trained:
            found = {
                law: _scores(one, _examples(one, budget.num_test, laws=(law,))).right(tolerance)
                for law in SPECTRAL_DISTRIBUTIONS
            }
            rows.append({"label": one.run.label.replace("_", " "), **found})
        caption = (
            f"Eigenvalues, {_size(trained)}: rows are training distributions, columns test distributions; right at "
            f"{tolerance:.0%}"
        )
        views["trained" if tolerance == 0.05 else "strict"] = view(caption, titles, rows)
    support = [{"label": "share of positive definite matrices", **_positive(trained, budget.num_test)}]
    support += _trivial(trained, budget.num_test)
    views["trivial"] = view(
        "What these distributions have in common, and answers without a model: right at 5 %", titles, support
    )
    return views


def noise(trained: Sequence[Trained], budget: Budget) -> dict[str, Any]:
    """Shares right on inputs with noise, beside those of an exact solver that reads the same inputs."""
    titles = {f"{noise:g}, {t:g}": f"noise {noise:.0%}, at {t:.0%}" for noise in _NOISES for t in TOLERANCES[:2]}
    rows, exact = [], {}
    for one in trained:
        row: Row = {"label": one.run.label}
        reference: Row = {"label": f"exact {_task(one).replace('_', ' ')} of the noisy input"}
        for level in _NOISES:
            groups = _examples(one, budget.num_test, input_noise=level)
            found, solved = _scores(one, groups), _exact_solver(groups)
            for tolerance in TOLERANCES[:2]:
                key = f"{level:g}, {tolerance:g}"
                row[key], reference[key] = found.right(tolerance), solved.right(tolerance)
        rows.append(row)
        exact[reference["label"]] = reference
    caption = f"Gaussian noise on the inputs, relative to the coefficients; {budget.num_test:,} examples"
    return {"trained": view(caption, titles, [*rows, *exact.values()])}


def loops(trained: Sequence[Trained], budget: Budget) -> dict[str, Any]:
    """Shared layers, halting and recurrent rivals after equal numbers of steps."""
    return {"trained": _accuracies(trained, budget, f"Eigenvalues, {_size(trained)}, equal numbers of examples")}


def beginnings(trained: Sequence[Trained], budget: Budget) -> dict[str, Any]:
    """What it is worth to begin with one row and with positive numbers, after equal numbers of steps."""
    return {
        "trained": _accuracies(
            trained, budget, f"Matrix-vector products, {_size(trained)}, by what training begins with"
        )
    }


def failure(trained: Sequence[Trained], budget: Budget) -> dict[str, Any]:
    """Where failures come from: rounding and conditioning for the inverse, non-orthogonality for eigenvectors."""
    views = {"trained": _accuracies(trained, budget, "Trained models of the two hard tasks")}
    found = [(one.run.label, task, s) for one in trained for task, s in _by_task(one, budget.num_test).items()]
    views["checks"] = checks_view("Their answers: share below 5 %", [(label, s) for label, _, s in found])
    inverses = [{"label": label, **by_condition(s)} for label, task, s in found if task == "inversion"]
    views["conditioning"] = view("Their inverses by conditioning", CONDITIONING, inverses)
    return {**views, **error_views(budget)}


MEASURES: dict[str, Callable[[Sequence[Trained], Budget], dict[str, Any]]] = {
    "ceilings": ceilings,
    "encodings": encodings,
    "tasks": tasks,
    "ood": ood,
    "noise": noise,
    "loops": loops,
    "beginnings": beginnings,
    "failure": failure,
}


def _accuracies(trained: Sequence[Trained], budget: Budget, caption: str) -> dict[str, Any]:
    """One line a model, or a task of a joint model: shares right, the ceiling at 5 %, and what training took."""
    titles = {"exact": "exact", **RIGHT, "ceiling": "rounding's ceiling at 5 %", "malformed": "malformed"}
    titles |= {"examples": "examples", "minutes": "minutes", "parameters": "parameters"}
    rows = []
    for one in trained:
        found = _by_task(one, budget.num_test)
        for task, scores in found.items():
            label = one.run.label if len(found) == 1 else f"{one.run.label}: {task.replace('_', ' ')}"
            figures = scores.figures()
            rows.append(
                {
                    "label": label,
                    "exact": figures["exact"],
                    **shares(scores),
                    "ceiling": _ceiling(one, task, budget.num_ceiling),
                    "malformed": figures["malformed"],
                    "examples": one.num_examples,
                    "minutes": one.card["run"]["minutes"],
                    "parameters": sum(p.numel() for p in one.model.parameters()),
                }
            )
    return view(f"{caption}; {budget.num_test:,} fresh test examples", titles, rows)


def _ceiling(one: Trained, task: str, count: int) -> float:
    config, source = one.model.config, _source(one)
    encodings = config.input_encoding, config.output_encoding
    return rounding_ceiling(task, source.rows[1], encodings=encodings, source=source, count=count).right(0.05)


def _examples(one: Trained, count: int, **changes: Any) -> list[Problems]:
    """Fresh ones of what the model was trained on, but for the changes."""
    vocabulary = one.model.config.vocabulary
    limits = vocabulary.input.limit, vocabulary.output.limit
    clean = {"input_noise": 0.0, "output_noise": 0.0, **changes}
    return draw_problems(replace(_source(one), **clean), count, _generator(), limits=limits)


def _scores(one: Trained, groups: list[Problems]) -> Scores:
    return Scores.of_many(evaluate(one.model, groups, joint=_source(one).joint))


def _by_task(one: Trained, count: int) -> dict[str, Scores]:
    groups = _examples(one, count)
    names = dict.fromkeys(group.task for group in groups)
    return {name: _scores(one, [group for group in groups if group.task == name]) for name in names}


def _exact_solver(groups: list[Problems]) -> Scores:
    """Scores of the exact answer to the noisy input; symmetric inputs are made symmetric again."""
    found = []
    for group in groups:
        read = (group.input + group.input.mT) / 2 if TASKS[group.task].symmetric else group.input
        error = errors(group.task, answer(group.task, read), group.output, group.input, group.shape)
        everywhere = torch.ones_like(error, dtype=torch.bool)
        found.append(Scores(error, ~everywhere, everywhere, {}))
    return Scores.of_many(found)


def _positive(trained: Sequence[Trained], count: int) -> Row:
    one = trained[0]
    return {law: share(_spectra(one, count, law).amin(1) > 0) for law in SPECTRAL_DISTRIBUTIONS}


def _trivial(trained: Sequence[Trained], count: int) -> list[Row]:
    """Two answers without a model: the mean eigenvalues, and those shifted and scaled to trace and Frobenius norm."""
    rows = []
    for one in trained:
        law = _source(one).laws[0]
        mean = _spectra(one, 10_000, law, seed=_SEED + 1).mean(0)
        rows.append({"label": f"mean of {law.replace('_', ' ')}", **_answered(one, count, lambda L, mean=mean: mean)})
    standard = _standard(_spectra(trained[0], 10_000, "semicircle", seed=_SEED + 1))[0].mean(0)

    def from_two_moments(L: torch.Tensor) -> torch.Tensor:
        _, centre, spread = _standard(L)
        shape = (standard - standard.mean()) / standard.std(unbiased=False)
        return centre + spread * shape

    return [*rows, {"label": "exact trace and norm, mean spectrum", **_answered(trained[0], count, from_two_moments)}]


def _answered(one: Trained, count: int, reply: Callable[[torch.Tensor], torch.Tensor]) -> Row:
    found = {}
    for law in SPECTRAL_DISTRIBUTIONS:
        L = _spectra(one, count, law)
        found[law] = share((reply(L) - L).abs().sum(1) / L.abs().sum(1) < 0.05)
    return found


def _standard(L: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    centre, spread = L.mean(1, keepdim=True), L.std(1, keepdim=True, unbiased=False)
    return (L - centre) / spread, centre, spread


def _spectra(one: Trained, count: int, law: str, seed: int = _SEED) -> torch.Tensor:
    source = replace(_source(one), laws=(law,), input_noise=0.0)
    [group] = draw_problems(source, count, _generator(seed))
    return group.output.squeeze(-1)


def _size(trained: Sequence[Trained]) -> str:
    source = _source(trained[0])
    (low, high), columns = source.rows, source.columns or source.rows
    return f"{high} x {columns[1]}" if low == high else f"{low} to {high} rows"


def _task(one: Trained) -> str:
    return _source(one).tasks[0]


def _source(one: Trained) -> Source:
    task: Any = one.plan.task
    return task.source


def _generator(seed: int = _SEED) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
