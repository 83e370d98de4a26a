"""Right on matrices it has never seen, at sizes it has never seen? The paper's ten families.

Whole matrices of a folder.

    python -m experiments.ood.generalization --part families --data-dir DIR
    python -m experiments.ood.generalization --part loops --data-dir DIR
    python -m experiments.ood.generalization --part matrices --data-dir DIR
    python -m experiments.ood.generalization --part ladder
    python -m experiments.ood.generalization --part lawt --data-dir DIR

Columns: the paper's RangeFormer, ours untrained and trained (the pure and the Galerkin member), CG or Lanczos at equal
passes and at equal matvecs, and dense factorisations; part `lawt` has LAWT beside them, for eigenvalues of the one size
its checkpoints know. Without a folder, matrices drawn from distributions take the place of real ones, and the result
says so.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from experiments.common import environment, matrices
from experiments.common.contenders import contenders
from experiments.common.models import GALERKIN, GALERKIN_UNTRAINED, PURE, WEIGHTS, members, paper_models
from experiments.common.options import option, parse, whole_numbers
from experiments.common.reporting import say, show_table, write_json
from experiments.lawt.contender import Lawt, lawt_columns, tiny_column
from experiments.ood import ablation as ood_ablation
from experiments.ood import loops as ood_loops
from experiments.ood import matrices as ood_matrices
from experiments.ood import pictures as ood_pictures
from experiments.ood import suite as ood_suite
from experiments.ood.families import Source

PARTS = {"families": ood_suite, "loops": ood_loops, "matrices": ood_matrices, "ladder": ood_ablation, "lawt": ood_suite}


@dataclass(frozen=True)
class Config:
    """Errors of the paper's RangeFormer, of ours and of classical methods on matrices that none was trained on."""

    part: str = option("families", "what to measure", tuple(PARTS))
    data_dir: Path | None = option(None, "a folder of square matrices: npz (scipy.sparse) or mtx files")
    sizes: str = option("20,50,200,1000", "n of the families, comma-separated; LAWT has its own")
    num_draws: int = option(5, "draws of every family, or right-hand sides of every matrix")
    num_loops: int = option(16, "loops of ours")
    pure: str = option("pure", "the trained pure member: a shipped name or a .safetensors file")
    galerkin: str = option("galerkin", "the trained Galerkin member: a shipped name or a .safetensors file")
    weights: Path = option(WEIGHTS, "folder of the baselines' checkpoints")
    output: Path = option(Path("results"), "folder of the JSON file and the picture")
    smoke: bool = option(False, "a tiny run with untrained models that shows that everything works")

    def __post_init__(self):
        """Check what the types do not say."""
        if min(self.num_draws, self.num_loops, *self.list_of_sizes) < 1:
            raise ValueError("`--sizes`, `--num-draws` and `--num-loops` must be at least 1.")

    @property
    def list_of_sizes(self) -> list[int]:
        """The sizes as numbers."""
        return whole_numbers("sizes", self.sizes)


def main(config: Config) -> dict:
    """Run, show, write, and return what was written."""
    if config.smoke:
        config = replace(config, sizes="20", num_draws=1, num_loops=2)
    rivals = _lawt_columns(config) if config.part == "lawt" else []
    if rivals:
        config = replace(config, sizes=",".join(map(str, sorted({column.num_rows for column in rivals}))))
    environment.prepare()
    real = () if config.data_dir is None else matrices.read(config.data_dir)
    result = {
        "kind": f"ood-{config.part}",
        "config": {name: value.name if isinstance(value, Path) else value for name, value in asdict(config).items()},
        "environment": environment.describe(torch.device("cpu")),
        "source": f"{len(real)} matrices of a folder" if real else "laws that imitate real matrices",
        **measure(config, Source(real), rivals),
    }
    module = PARTS[config.part]
    show_table(module.caption(result), *module.comparison(result))
    path = config.output / f"ood_{config.part}.json"
    write_json(path, result, compact=True)
    ood_pictures.DRAW[config.part](path.with_suffix(".png"), result)
    say(f"wrote {path} and {path.with_suffix('.png')}")
    return result


def measure(config: Config, source: Source, rivals: Sequence[Lawt] = ()) -> dict:
    """The numbers of one part; `rivals` are those of part `lawt`."""
    if config.part == "ladder":
        models = ood_ablation.steps(config.weights)
        if config.smoke:
            models = [(f"untrained, {name}", model) for name, model in paper_models(tiny=True).items()]
        if not models:
            raise ValueError(
                f"`--weights` must be a folder with files ladder-<k>.safetensors. Got {config.weights.name}."
            )
        return {"rows": ood_ablation.measure(models, config.num_draws, source)}
    ours = members(config.pure, config.galerkin, tiny=config.smoke)
    if config.part == "loops":
        if config.smoke:  # one of each kind shows that it works
            ours = {label: ours[label] for label in (PURE, GALERKIN)}
        cases = ood_loops.measure(ours, config.list_of_sizes, config.num_draws, source)
        return {"summary": ood_loops.summary(cases), "worst": ood_loops.worst_offenders(cases)}
    if config.part == "matrices":
        real = source.real or ood_matrices.imitations(config.num_draws)
        rows = ood_matrices.measure(ours, real, config.num_draws)
        return {"rows": rows, "summary": ood_matrices.summary(rows, GALERKIN, GALERKIN_UNTRAINED)}
    paper = paper_models(config.weights, tiny=config.smoke)
    columns = contenders(ours, paper, config.num_loops)
    if config.part == "lawt":
        columns = [*rivals, *columns]
        return {"cells": ood_suite.measure(columns, config.list_of_sizes, config.num_draws, source, ("eigenvalues",))}
    cells = ood_suite.measure(columns, config.list_of_sizes, config.num_draws, source)
    names = ("paper", "paper, scaled")
    return {"cells": cells, "gates": ood_suite.gates(cells, GALERKIN, PURE, names)}


def _lawt_columns(config: Config) -> list[Lawt]:
    rivals = [tiny_column()] if config.smoke else lawt_columns(config.weights)
    if not rivals:
        raise ValueError(
            "`--weights` must be a folder with files lawt-eigenvalues-<distribution>.safetensors. Got "
            f"{config.weights.name}."
        )
    return rivals


if __name__ == "__main__":
    main(parse(Config))
