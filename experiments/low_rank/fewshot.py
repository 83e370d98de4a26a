"""Few-shot: a sketch adapted to a family of matrices from some of its members, on members that it has not seen.

    python -m experiments.low_rank.fewshot

Every sketch may read the same rows and makes the same two passes, so that what differs is what the sketch knew before.
Beside the fine-tuned sketch stand the same without gradient steps (the members' common space, and which of them are
like the rows read), the pretrained sketch that it starts from, and sketches that know nothing. A held-out member with
its columns in random order is no member any more: there the family must cost nothing.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

import sketching
from experiments.common import environment
from experiments.common.options import option, parse, whole_numbers
from experiments.common.pictures import GRID, STYLE, plt
from experiments.common.reporting import progress, say, show_table, write_json
from experiments.low_rank.contenders import error
from experiments.low_rank.families import FAMILIES, Family
from experiments.low_rank.matrices import Case
from sketching import RandomFeatures, RangeFormerSketch
from sketching.arguments import as_sketch

BUDGETS: dict[str, int | None] = {"24 rows": 24, "default": None}
"""Rows that a sketch may read: few, or by `randomized_svd`'s default."""
TUNED, NO_STEPS, PRETRAINED = "fine-tuned", "no gradient steps", "pretrained"
NAMED = {"untrained": "rangeformer-untrained", "sampled rows": "sampled-rows", "Gaussian": "gaussian"}
_NUM_STRANGERS = 4
_FLOOR = 1e-6  # excess below is the optimum to all purposes, and has no logarithm worth averaging


@dataclass(frozen=True)
class Config:
    """Low-rank approximation of members of a family by a sketch that has seen other members."""

    num_members: str = option("3,8,24", "members to learn from; the gradient steps are taken with the most alone")
    num_steps: int = option(200, "most gradient steps")
    num_seeds: int = option(2, "draws of every sketch")
    output: Path = option(Path("results"), "folder of the JSON file and the picture")
    smoke: bool = option(False, "a tiny run that shows that everything works")

    def __post_init__(self):
        """Check what the types do not say."""
        if self.num_seeds < 1:
            raise ValueError(f"`--num-seeds` must be at least 1. Got {self.num_seeds}.")
        if not all(2 <= count <= 30 for count in self.counts):
            raise ValueError(
                f"`--num-members` must be numbers between 2 and 30, with commas. Got {self.num_members!r}."
            )

    @property
    def counts(self) -> list[int]:
        """The numbers of members."""
        return sorted(whole_numbers("num-members", self.num_members))


def main(config: Config) -> dict:
    """Run, show, write, and return what was written."""
    if config.smoke:
        config = replace(config, num_members="3", num_steps=2, num_seeds=1)
    environment.prepare()
    rows, described = [], []
    names = ("portraits",) if config.smoke else tuple(FAMILIES)
    with progress("families", len(names)) as done:
        for name in names:
            try:
                family = FAMILIES[name](config.counts[-1])
            except ImportError as reason:
                say(f"{name} is left out: {reason}")
                continue
            described.append({"name": family.name, "shape": list(family.members[0].shape), "rank": family.rank})
            if config.smoke:
                family = replace(family, held_out=family.held_out[:2])
            rows += measure(family, config)
            done(family.name)
    result = {
        "kind": "sketching-fewshot",
        "config": {name: value.name if isinstance(value, Path) else value for name, value in asdict(config).items()},
        "environment": environment.describe(torch.device("cpu")),
        "trained": pretrained().is_trained(),
        "families": described,
        "rows": rows,
    }
    show_table(caption(result), *comparison(result))
    path = config.output / "sketching-fewshot.json"
    write_json(path, result, compact=True)
    draw(path.with_suffix(".png"), result)
    say(f"wrote {path} and {path.with_suffix('.png')}")
    return result


def pretrained() -> RandomFeatures:
    """The lift of the sketch called "rangeformer"."""
    law = as_sketch("rangeformer")
    assert isinstance(law, RangeFormerSketch)
    return law.random_features


def measure(family: Family, config: Config) -> list[dict]:
    """Every sketch on the members held out, and on the same with their columns in random order."""
    held_out = [_case(family.name, A) for A in family.held_out]
    random = np.random.default_rng(0)
    strangers = [_case("stranger", A[:, random.permutation(A.shape[1])]) for A in family.held_out[:_NUM_STRANGERS]]
    rows = []
    for budget, max_rows in BUDGETS.items():
        laws: list[tuple[str, int, sketching.Sketch, float]] = [
            (name, 0, as_sketch(sketch), 0.0) for name, sketch in NAMED.items()
        ]
        laws.append((PRETRAINED, 0, RangeFormerSketch(pretrained()), 0.0))
        for count in config.counts:
            plans = [(NO_STEPS, 0)] + [(TUNED, config.num_steps)] * (count == config.counts[-1])
            for name, num_steps in plans:
                lift, seconds = _tuned(family.members[:count], family.rank, max_rows, num_steps)
                laws.append((name, count, RangeFormerSketch(lift), seconds))
        for name, count, law, seconds in laws:
            excesses, others = (
                [_excess(case, law, family.rank, max_rows, range(config.num_seeds)) for case in some]
                for some in (held_out, strangers if name in (PRETRAINED, TUNED) else [])
            )
            rows.append(
                {
                    "family": family.name,
                    "budget": budget,
                    "method": name,
                    "num_members": count,
                    "seconds": seconds,
                    "excess": _geometric(excesses),
                    "stranger": _geometric(others) if others else None,
                    "excesses": excesses,
                }
            )
    return rows


def _case(name: str, A: np.ndarray) -> Case:
    return Case(name, A, np.linalg.svd(A, compute_uv=False))


def _tuned(members: list[np.ndarray], rank: int, max_rows: int | None, num_steps: int) -> tuple[RandomFeatures, float]:
    """The lift fine-tuned, and the seconds that it took."""
    device = torch.device("cpu")
    with environment.stopwatch(device, environment.steady_clock(device)) as seconds:
        lift = sketching.finetune(pretrained(), members, rank, max_rows=max_rows, num_steps=num_steps)
    return lift, seconds[0]


def _excess(case: Case, law: sketching.Sketch, rank: int, max_rows: int | None, seeds: Iterable[int]) -> float:
    """Frobenius error over the best of that rank, minus one; mean over seeds."""
    optimum, found = case.optimum(rank), []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        low_rank = sketching.randomized_svd(
            case.A, rank, sketch=law, num_power_iterations=0, max_rows=max_rows, generator=generator
        )
        U, S, Vh = (part.numpy() for part in low_rank)
        found.append(error(case.A, (U, S, Vh)) / optimum - 1)
    return float(np.mean(found))


def _geometric(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, _FLOOR)))))


def caption(result: dict, view: str = "") -> str:
    """What the numbers are."""
    state = "pretrained" if result["trained"] else "untrained: no trained weights are shipped"
    return (
        "Excess error over the best rank-r on members held out, geometric means, two passes; in brackets over that of "
        "the sketch "
        f"started from ({state}), and that ratio where columns are shuffled, so that the matrix is no member; "
        f"{result['config']['num_seeds']} seeds, float64"
    )


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows."""
    table = {_key(row): row for row in result["rows"]}
    columns = list(dict.fromkeys((row["method"], row["num_members"]) for row in result["rows"]))
    header = ["", *(name if not count else f"{name}, {count} members" for name, count in columns), "no member"]
    rows = []
    for family in result["families"]:
        for budget in BUDGETS:
            base = table[family["name"], budget, PRETRAINED, 0]
            cells = []
            for name, count in columns:
                row = table[family["name"], budget, name, count]
                ratio = max(row["excess"], _FLOOR) / max(base["excess"], _FLOOR)
                cells.append(f"{row['excess']:.4f} ({ratio:.2f})" if count else f"{row['excess']:.4f}")
            tuned = table[family["name"], budget, TUNED, columns[-1][1]]
            stranger = max(tuned["stranger"], _FLOOR) / max(base["stranger"], _FLOOR)
            m, n = family["shape"]
            label = f"{family['name']}, {m} x {n}, rank {family['rank']}, {_said(budget)}"
            rows.append([label, *cells, f"{stranger:.2f}"])
    return header, rows


def _key(row: dict) -> tuple[str, str, str, int]:
    return row["family"], row["budget"], row["method"], row["num_members"]


def _said(budget: str) -> str:
    return f"{budget} read" if budget != "default" else "default reads"


def draw(path: Path, result: dict) -> None:
    """Excess over that of the sketch started from, member by member, and its mean against the number of members."""
    families = [family["name"] for family in result["families"]]
    table = {_key(row): row for row in result["rows"]}
    counts = sorted({row["num_members"] for row in result["rows"] if row["method"] == NO_STEPS})
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(13, 5.2), layout="constrained", width_ratios=(3, 2))
        colors = plt.get_cmap("tab10")
        for place, name in enumerate(families):
            for side, budget in enumerate(BUDGETS):
                base, tuned = (
                    np.maximum(table[name, budget, method, count]["excesses"], _FLOOR)
                    for method, count in ((PRETRAINED, 0), (TUNED, counts[-1]))
                )
                at = place + 0.3 * (side - 0.5)
                panels[0].plot(at + np.linspace(-0.08, 0.08, len(base)), tuned / base, "o^"[side], color=colors(place))
                shares = [table[name, budget, NO_STEPS, count]["excess"] for count in counts]
                start = table[name, budget, PRETRAINED, 0]["excess"]
                ratios = np.maximum(shares, _FLOOR) / max(start, _FLOOR)
                label = f"{name}, {_said(budget)}"
                panels[1].plot(counts, ratios, "o^"[side] + ("-", "--")[side], color=colors(place), label=label)
        panels[0].set_xticks(range(len(families)), [name.replace(" ", "\n", 1) for name in families])
        panels[0].set(
            ylabel="excess error over that before fine-tuning", title="Each member held out (▲: default reads)"
        )
        panels[1].set(xlabel="members learned from", title="Without gradient steps")
        panels[1].legend(frameon=False, fontsize=8)
        for axes in panels:
            axes.set_yscale("log")
            axes.axhline(1.0, color="#888888", lw=1)
            axes.axhline(0.5, color="#888888", lw=1, ls=":")
            axes.grid(color=GRID, lw=0.6)
            axes.set_axisbelow(True)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    main(parse(Config))
