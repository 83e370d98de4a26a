"""Training Charton's sequence-to-sequence models: cross-entropy of the next token, fresh examples in every step.

As in the paper: teacher forcing, the mean over all target tokens with dimensions and end, an Adam, warm-up. Otherwise
than
there: the learning rate follows one cosine to its end, a moving average of the weights is what is validated, examples
in validation are the same throughout, matrices may have fewer rows and fewer negative numbers at first, and the best
model is kept by the cross-entropy, which, unlike the accuracy, moves from the first step. Fresh examples cannot be
overfitted, so the distributions of validation are those of training.
"""

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import nn

from rangeformer.baselines.lawt import (
    LawtConfig,
    LawtRecurrent,
    LawtTransformer,
    Problems,
    Scores,
    Source,
    draw_problems,
    evaluate,
)
from rangeformer.baselines.lawt.symbols import PADDING
from rangeformer.baselines.lawt.tasks import TASKS
from rangeformer.baselines.lawt.vocabulary import Vocabulary, pad
from rangeformer.pretrain.task import Task
from rangeformer.shapes import Int, Tensor

VALIDATION_SEED = 20_250  # the validation examples are the same in every run, whatever its seed


@dataclass(frozen=True)
class LawtBatch:
    """One shard's batch: sequences from boundary to boundary, padded at the end.

    Attributes:
        source: Inputs.
        target: Answers.
    """

    source: Int[Tensor, "b s"]
    target: Int[Tensor, "b t"]


@dataclass(frozen=True)
class LawtTask(Task):
    """Settings of the task "lawt"."""

    objective: ClassVar[str] = "cross_entropy"
    mixed_precision: ClassVar[bool] = True
    figure_titles: ClassVar[dict[str, str]] = {
        "cross_entropy": "cross-entropy per token",
        "exact": "share exact",
        "right_0.05": "share right at 5 %",
        "right_0.02": "share right at 2 %",
        "right_0.01": "share right at 1 %",
        "right_0.005": "share right at 0.5 %",
    }

    model: LawtConfig = field(default_factory=LawtConfig)
    """The model and its encodings."""
    source: Source = field(default_factory=Source)
    """What is asked, of which matrices."""
    batch_size: int = 64
    """Fresh examples in each step and shard."""
    validation_size: int = 500
    """Examples that are decoded and scored in each validation."""
    rows_from: tuple[float, ...] = ()
    """Progress from which matrices have two rows, three..., and from the last one on all.

    Before, they have one. A batch of fewer rows has as many more matrices. They are the first rows of larger ones,
    written at the same positions, so that
    arithmetic is learned where few positions are to be told apart. The paper has none of this: ()."""
    signs_between: tuple[float, float] | None = None
    """Progress between which the share of negative coefficients grows from none to that of `source`.

    The sign of a product says nothing about either factor's, and where sums of such products are asked, the second
    one's is not found; among
    mostly positive numbers each sign tells something by itself. The paper has none of this: None."""
    passes_price: float = 0.001
    """What a pass of a halting encoder costs in the loss."""

    def __post_init__(self) -> None:
        """Reject what would fail only after minutes.

        Raises:
            ValueError: Sequences longer than the model has positions for, or an impossible number.
        """
        if self.batch_size < 1 or self.validation_size < 1:
            raise ValueError("`batch_size` and `validation_size` must be positive.")
        if self.passes_price < 0:
            raise ValueError(f"`passes_price` must not be negative. Got {self.passes_price}.")
        if list(self.rows_from) != sorted(self.rows_from) or not all(0 <= start <= 1 for start in self.rows_from):
            raise ValueError(f"`rows_from` must ascend within [0, 1]. Got {self.rows_from}.")
        if self.rows_from and (square := self.source.square):
            raise ValueError(
                f"`rows_from` must be empty with tasks of square matrices, {square}. Got {self.rows_from}."
            )
        if self.signs_between is not None:
            if not 0 <= self.signs_between[0] < self.signs_between[1] <= 1:
                raise ValueError(f"`signs_between` must be 0 <= start < end <= 1. Got {self.signs_between}.")
            if symmetric := self.source.symmetric:
                raise ValueError(
                    f"`signs_between` must be None with tasks of symmetric matrices, {symmetric}. "
                    f"Got {self.signs_between}."
                )
        vocabulary = self.model.vocabulary
        lengths = [
            vocabulary.length(shape(m, n), encoding, joint=self.source.joint)
            for task, (m, n) in self.source.shapes()
            for shape, encoding in (
                (TASKS[task].input_shape, vocabulary.input),
                (TASKS[task].output_shape, vocabulary.output),
            )
        ]
        if self.model.kind == "transformer" and max(lengths) > self.model.num_positions:
            raise ValueError(
                f"`num_positions` must be at least {max(lengths)}, the longest sequence. Got "
                f"{self.model.num_positions}; "
                "take smaller matrices, a shorter encoding or more positions."
            )

    def build(self, generator: torch.Generator) -> nn.Module:
        """The untrained model."""
        kind = LawtTransformer if self.model.kind == "transformer" else LawtRecurrent
        return kind(self.model, generator=generator)

    def draw(self, generator: torch.Generator, progress: float) -> LawtBatch:
        """Fresh examples, where it is asked for of the first rows or of positive numbers only at first."""
        return self.sequences(self._problems(*self._asked(progress), generator))

    def num_examples(self, steps: int, num_steps: int) -> int:
        """How many examples a shard has drawn in the first steps of a run of so many."""
        starts = [bisect_left(range(steps), start, key=lambda step: step / num_steps) for start in self.rows_from]
        stages = zip([0, *starts], [*starts, steps], strict=True)
        return sum(self._asked(first / num_steps)[1] * (end - first) for first, end in stages)

    def _asked(self, progress: float) -> tuple[Source, int]:
        """What a batch is drawn from at this point, and how many examples."""
        source, count = self.source, self.batch_size
        if self.rows_from and progress < self.rows_from[-1]:
            most = source.rows[1]
            rows = min(1 + sum(progress >= start for start in self.rows_from), most)
            source = replace(source, rows=(rows, rows), columns=source.columns or source.rows)
            count = count * most // rows
        if self.signs_between is not None and progress < self.signs_between[1]:
            start, end = self.signs_between
            grown = max(progress - start, 0.0) / (end - start)
            source = replace(source, negative_share=grown * source.negative_share)
        return source, count

    def loss(self, model: nn.Module, batch: LawtBatch) -> tuple[Tensor, dict[str, float]]:
        """Mean cross-entropy of all target tokens, and the price of the encoder's passes where it may halt."""
        logits, passes = model(batch.source, batch.target[:, :-1])
        wanted = batch.target[:, 1:]
        entropy = nn.functional.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), ignore_index=PADDING)
        if self.model.loop != "halting":
            return entropy, {"cross_entropy": entropy.item()}
        parts = {"cross_entropy": entropy.item(), "passes": passes.item()}
        return entropy + self.passes_price * passes.float(), parts

    def sequences(self, groups: list[Problems]) -> LawtBatch:
        """Examples as tokens."""
        vocabulary = self.model.vocabulary
        named = [(group, group.task if self.source.joint else None) for group in groups]
        return LawtBatch(
            pad([vocabulary.write(group.input, vocabulary.input, task) for group, task in named]),
            pad([vocabulary.write(group.output, vocabulary.output, task) for group, task in named]),
        )

    def validation_set(self) -> list[Problems]:
        """Examples of the distribution that is trained on, drawn with a seed of their own."""
        return self._problems(self.source, self.validation_size, torch.Generator().manual_seed(VALIDATION_SEED))

    @torch.no_grad()
    def validate(
        self, model: nn.Module, validation_set: list[Problems]
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Cross-entropy, accuracies by greedy decoding, and the same by task."""
        assert isinstance(model, LawtTransformer | LawtRecurrent)
        device = next(model.parameters()).device
        batch = self.sequences(validation_set)
        parts = [
            (self.loss(model, LawtBatch(source.to(device), target.to(device)))[1]["cross_entropy"], len(source))
            for source, target in zip(batch.source.split(256), batch.target.split(256), strict=True)
        ]
        entropy = sum(value * count for value, count in parts) / self.validation_size
        by_task: dict[str, list[Scores]] = {}
        for group in validation_set:
            by_task.setdefault(group.task, []).extend(evaluate(model, [group], joint=self.source.joint))
        figures = Scores.of_many([score for scores in by_task.values() for score in scores]).figures()
        shown = ("exact", "right_0.05", "right_0.02", "right_0.01", "right_0.005", "malformed")
        rows = [{"task": task, **_shown(Scores.of_many(by_task[task]).figures(), shown)} for task in sorted(by_task)]
        return {"cross_entropy": entropy, **_shown(figures, shown)}, rows

    def card(self) -> dict[str, Any]:
        """The distributions, and what the figures mean."""
        laws = {"coefficients": self.source.coefficients}
        if any(TASKS[task].symmetric for task in self.source.tasks):
            laws["eigenvalues"] = ", ".join(self.source.laws)
        return {
            "training_laws": laws,
            "examples_per_step": self.batch_size,
            "meaning": "cross_entropy: mean over target tokens, by which the best model is kept; exact: share of "
            "answers "
            "of which every token is right; right_t: share of answers with the paper's relative error below t; all "
            "on examples of the distributions that are trained on, drawn anew",
        }

    def _problems(self, source: Source, count: int, generator: torch.Generator) -> list[Problems]:
        vocabulary: Vocabulary = self.model.vocabulary
        return draw_problems(source, count, generator, limits=(vocabulary.input.limit, vocabulary.output.limit))


def _shown(figures: dict[str, float], names: tuple[str, ...]) -> dict[str, float]:
    return {name: figures[name] for name in names}
