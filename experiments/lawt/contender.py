"""LAWT as a column of comparisons: eigenvalues of matrices of the one size that its checkpoint was trained on."""

import math
from dataclasses import dataclass
from pathlib import Path

from experiments.common.contenders import CANNOT_RUN, Answer, Contender, Price, Problem
from rangeformer.baselines.lawt import LawtConfig, LawtTransformer, predict
from rangeformer.baselines.lawt.decoding import Model
from rangeformer.models.checkpoint import load, read_card


@dataclass(frozen=True)
class Lawt(Contender):
    """A model of eigenvalues; what it reports are answers that are no numbers.

    Attributes:
        label: Of the column.
        model: The network.
        num_rows: n, on which it was trained.
        size: Root mean square of the entries in training. If given, matrices are brought to it and the answer back:
            the numbers' encoding reaches any scale, the training did not.
    """

    label: str
    model: Model
    num_rows: int
    size: float | None = None

    def answer(self, problem: Problem, operation: str, price: Price) -> Answer:
        """The network's answer, ascending."""
        A = problem.matrix
        if operation != "eigenvalues" or problem.num_rows != self.num_rows:
            return CANNOT_RUN
        size = float(A.square().mean().sqrt())
        factor = size / self.size if self.size is not None and size > 0 else 1.0
        value, well_formed = predict(self.model, (A / factor).unsqueeze(0), "eigenvalues")
        return Answer(value.flatten().sort().values * factor, reported=not bool(well_formed))


def lawt_columns(weights: Path) -> list[Lawt]:
    """Raw and scaled, of every file `lawt-eigenvalues-<distribution>.safetensors` of a folder.

    Args:
        weights: The folder.

    Raises:
        ValueError: If a file there is of several sizes or tasks.
    """
    columns = []
    for file in sorted(weights.glob("lawt-eigenvalues-*.safetensors")):
        source = read_card(file)["training"]["settings"]["source"]
        low, high = source["rows"]
        if low != high or source["tasks"] != ["eigenvalues"]:
            raise ValueError(
                f"`--weights` must hold LAWT models of the eigenvalues of one size. Got {file.name}, of "
                f"{source['tasks']} "
                f"with {low} to {high} rows."
            )
        model = load(file)
        # entries are uniform on [-A, A] or have as large a variance
        size = math.sqrt(sum(a * a for a in source["scale"]) / 2 / 3)
        label = f"LAWT ({file.stem.removeprefix('lawt-eigenvalues-').replace('_', ' ')})"
        columns += [Lawt(label, model, low), Lawt(f"{label}, scaled", model, low, size)]
    return columns


def tiny_column() -> Lawt:
    """An untrained model of 3 x 3 matrices, for a smoke test."""
    config = LawtConfig(encoder_width=8, decoder_width=8, encoder_heads=2, decoder_heads=2, num_positions=64)
    return Lawt("LAWT (untrained)", LawtTransformer(config).eval(), 3)
