"""How accurate a model is, in the paper's figures and others, and how accurate the exact answer is once rounded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from rangeformer.baselines.lawt.decoding import Model, beam, greedy
from rangeformer.baselines.lawt.digits import rounded
from rangeformer.baselines.lawt.metrics import TOLERANCES, checks, errors
from rangeformer.baselines.lawt.problems import Problems, Source, draw_problems
from rangeformer.baselines.lawt.symbols import PADDING
from rangeformer.baselines.lawt.vocabulary import Vocabulary
from rangeformer.shapes import Bool, Float, Int, Tensor

_CHUNK = 512  # examples that are decoded at once


@dataclass(frozen=True)
class Scores:
    """What became of each example.

    Attributes:
        error: The paper's error; infinite where malformed.
        exact: Whether every token is the target's.
        well_formed: Whether the sequence is a matrix of the right shape.
        checks: What the error does not ask, by name.
    """

    error: Float[Tensor, " b"]
    exact: Bool[Tensor, " b"]
    well_formed: Bool[Tensor, " b"]
    checks: dict[str, Float[Tensor, " b"]]

    @classmethod
    def of_many(cls, scores: Sequence["Scores"]) -> "Scores":
        """Those of several groups together; checks that not all have are left out."""
        names = set.intersection(*(set(score.checks) for score in scores))
        return cls(
            torch.cat([score.error for score in scores]),
            torch.cat([score.exact for score in scores]),
            torch.cat([score.well_formed for score in scores]),
            {name: torch.cat([score.checks[name] for score in scores]) for name in sorted(names)},
        )

    def right(self, tolerance: float, *, short_cut: bool = False) -> float:
        """Share of errors below the tolerance; with the paper's short-cut, exact ones count whatever their error is."""
        found = self.error < tolerance
        return (found | self.exact if short_cut else found).double().mean().item()

    def figures(self) -> dict[str, float]:
        """Shares right at each tolerance, exact and malformed; median and 95 % quantile of the errors."""
        ordered = self.error.sort().values
        last = len(ordered) - 1
        return {
            **{f"right_{tolerance:g}": self.right(tolerance) for tolerance in TOLERANCES},
            "exact": self.exact.double().mean().item(),
            "malformed": 1 - self.well_formed.double().mean().item(),
            "median_error": ordered[last // 2].item(),
            "tail_error": ordered[int(0.95 * last)].item(),
        }


def evaluate(model: Model, problems: Iterable[Problems], *, joint: bool = False, num_beams: int = 1) -> list[Scores]:
    """Decode and score groups of examples.

    Args:
        model: What answers, on any device.
        problems: Groups, as `draw_problems` returns them.
        joint: Whether sequences begin with the token of their task.
        num_beams: 1 for greedy decoding.

    Returns:
        Scores of each group, on the CPU.
    """
    vocabulary, device = model.config.vocabulary, next(model.parameters()).device
    found = []
    for group in problems:
        task = group.task if joint else None
        source = vocabulary.write(group.input, vocabulary.input, task)
        target = vocabulary.write(group.output, vocabulary.output, task)
        max_tokens = vocabulary.length((group.output.shape[1], group.output.shape[2]), vocabulary.output, joint=joint)
        answers = [
            greedy(model, part, max_tokens) if num_beams == 1 else beam(model, part, max_tokens, num_beams=num_beams)
            for part in source.to(device).split(_CHUNK)
        ]
        for part, *chunk in zip(answers, source.split(_CHUNK), target.split(_CHUNK), strict=True):
            found.append(_score(group, vocabulary, part.cpu(), chunk[0].cpu(), chunk[1].cpu(), task))
    return found


def _score(
    group: Problems,
    vocabulary: Vocabulary,
    answers: Int[Tensor, "b t"],
    source: Int[Tensor, "b s"],
    target: Int[Tensor, "b r"],
    task: str | None,
) -> Scores:
    (_, *inputs), (_, *outputs) = group.input.shape, group.output.shape
    input_shape, output_shape = (inputs[0], inputs[1]), (outputs[0], outputs[1])
    read, _ = vocabulary.read(source, input_shape, vocabulary.input, task)
    wanted, _ = vocabulary.read(target, output_shape, vocabulary.output, task)
    predicted, well_formed = vocabulary.read(answers, output_shape, vocabulary.output, task)
    longest = max(answers.shape[1], target.shape[1])
    same = [torch.nn.functional.pad(x, (0, longest - x.shape[1]), value=PADDING) for x in (answers, target)]
    return Scores(
        errors(group.task, predicted, wanted, read, group.shape),
        (same[0] == same[1]).all(1),
        well_formed,
        checks(group.task, predicted, wanted, read, group.shape),
    )


def rounding_ceiling(
    task: str,
    n: int,
    *,
    encodings: tuple[str, str] | None = None,
    digits: int | None = None,
    source: Source | None = None,
    count: int = 10_000,
    generator: torch.Generator | None = None,
) -> Scores:
    """Scores of the exact answer, rounded as the encoding rounds it: no model that is not token-exact can do better.

    Args:
        task: Which, of n x n operands.
        n: Rows.
        encodings: Names of the encodings of inputs and outputs. Default: three digits, any range.
        digits: Round inputs and outputs to that many digits instead of encoding them.
        source: Where the examples come from; `tasks`, `rows` and `columns` are replaced. Default: the paper's.
        count: Examples.
        generator: Source of the examples. Default: seed 0.

    Raises:
        ValueError: If both `encodings` and `digits` are given.

    Example:
        >>> from rangeformer.baselines.lawt import rounding_ceiling
        >>> round(rounding_ceiling("inversion", 5, count=2000).right(0.05), 2)
        0.92
    """
    if encodings is not None and digits is not None:
        raise ValueError("`encodings` and `digits` exclude each other: an encoding has three digits.")
    base = source or Source()
    source = Source(**{**vars(base), "tasks": (task,), "rows": (n, n), "columns": None})
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    if encodings is None:
        limits, trips = (1e101, 1e101), 2 * (lambda values: rounded(values, digits or 3),)
    else:
        vocabulary = Vocabulary(*encodings)
        limits = vocabulary.input.limit, vocabulary.output.limit
        trips = vocabulary.input.round_trip, vocabulary.output.round_trip
    [group] = draw_problems(source, count, generator, limits=limits)
    read, written = trips[0](group.input), trips[1](group.output)
    everywhere = torch.ones(count, dtype=torch.bool)
    return Scores(
        errors(task, written, written, read, group.shape),
        everywhere,
        everywhere,
        checks(task, written, written, read, group.shape),
    )
