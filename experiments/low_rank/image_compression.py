"""A photograph from a few numbers, side by side: the original, a Gaussian sketch, ours, and the best of that rank.

    python -m experiments.low_rank.image_compression --photograph china --rank 20

All three approximations cost the same passes over the picture; the third needs all of it in an SVD. Underneath, where
each goes wrong.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

import sketching
from experiments.common import environment
from experiments.common.options import option, parse
from experiments.common.pictures import STYLE, plt
from experiments.common.reporting import say, show_table, write_json
from experiments.common.shipped_matrices import photograph

PHOTOGRAPHS = ("china", "flower", "hopper")


@dataclass(frozen=True)
class Config:
    """A photograph approximated by a low rank, to look at."""

    photograph: str = option("china", "which photograph of an installed package", PHOTOGRAPHS)
    image: Path | None = option(None, "a picture file of your own instead")
    rank: int = option(20, "rank of the approximations")
    num_power_iterations: int = option(0, "power iterations of both sketches, two passes each beside the first two")
    seed: int = option(0, "of the sketches")
    output: Path = option(Path("results"), "folder of the JSON file and the picture")
    smoke: bool = option(False, "a tiny run that shows that everything works")


def main(config: Config) -> dict:
    """Run, show, write, and return what was written."""
    A = photograph(config.photograph) if config.image is None else grey(config.image)
    if config.smoke:
        A, config = A[::4, ::4], replace(config, rank=min(config.rank, 8))
    environment.prepare()
    pictures, rows = approximations(np.ascontiguousarray(A), config)
    result = {
        "kind": "image-compression",
        "config": {name: value.name if isinstance(value, Path) else value for name, value in asdict(config).items()},
        "environment": environment.describe(torch.device("cpu")),
        "shape": list(A.shape),
        "rows": rows,
    }
    show_table(caption(result), *comparison(result))
    path = config.output / "image-compression.json"
    write_json(path, result)
    draw(path.with_suffix(".png"), pictures, rows)
    say(f"wrote {path} and {path.with_suffix('.png')}")
    return result


def grey(path: Path) -> np.ndarray:
    """A picture file as `(height, width)` between 0 and 1.

    Args:
        path: Anything that Pillow reads.
    """
    from PIL import Image

    return np.asarray(Image.open(path).convert("L")) / 255


def approximations(A: np.ndarray, config: Config) -> tuple[dict[str, np.ndarray], list[dict]]:
    """The pictures by name, and what each cost and lost.

    Args:
        A: `(height, width)`.
        config: Rank and seed.
    """
    if not 1 <= config.rank <= min(A.shape):
        raise ValueError(f"`--rank` must be between 1 and {min(A.shape)} for this picture. Got {config.rank}.")
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    best = (U[:, : config.rank] * S[: config.rank]) @ Vh[: config.rank]
    pictures, rows = {"original": A}, []
    for name, sketch in (("Gaussian", "gaussian"), ("sampled rows", "sampled-rows"), ("rangeformer", "rangeformer")):
        generator = torch.Generator().manual_seed(config.seed)
        low_rank = sketching.randomized_svd(
            A,
            config.rank,
            sketch=sketch,
            num_power_iterations=config.num_power_iterations,
            generator=generator,
        )
        left, values, right = (part.numpy() for part in low_rank)
        pictures[name] = (left * values) @ right
        cost = f"{low_rank.num_passes} passes"
        if low_rank.num_entries:
            cost += f" and {100 * low_rank.num_entries / A.size:.0f} % of the rows"
        rows.append(_row(name, A, pictures[name], best, cost, low_rank.relative_error))
    pictures["best of the rank"] = best
    rows.append(_row("best of the rank", A, best, best, "an SVD", None))
    return pictures, rows


def _row(name: str, A: np.ndarray, picture: np.ndarray, best: np.ndarray, cost: str, estimate: float | None) -> dict:
    error, least = float(np.linalg.norm(A - picture)), float(np.linalg.norm(A - best))
    return {
        "name": name,
        "cost": cost,
        "error": error / float(np.linalg.norm(A)),
        "estimate": estimate,
        "excess": error / least - 1 if least > 0 else 0.0,
        "psnr": float(-20 * np.log10(max(error / A.size**0.5, np.finfo(np.float64).eps))),
    }


def caption(result: dict, view: str = "") -> str:
    """What the numbers are."""
    config, (height, width) = result["config"], result["shape"]
    name = config["image"] or config["photograph"]
    share = 100 * config["rank"] * (height + width + 1) / (height * width)
    return f"{name}, {height} x {width}, rank {config['rank']}: {share:.0f} % of the numbers"


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows."""
    rows = [
        [
            row["name"],
            row["cost"],
            f"{row['error']:.4f}",
            "" if row["estimate"] is None else f"{row['estimate']:.4f}",
            f"{100 * row['excess']:.1f} %",
            f"{row['psnr']:.1f} dB",
        ]
        for row in result["rows"]
    ]
    return ["", "read", "relative error", "as estimated", "over the best", "PSNR"], rows


def draw(path: Path, pictures: dict[str, np.ndarray], rows: list[dict]) -> None:
    """Pictures above, what is wrong with them below, on one scale.

    Args:
        path: Of the file.
        pictures: By name, the original first.
        rows: What `approximations` returned.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    original, found = pictures["original"], {row["name"]: row for row in rows}
    worst = max(np.quantile(np.abs(original - picture), 0.99) for picture in pictures.values())
    height, width = original.shape
    size = (3.6 * len(pictures), 2 * 3.6 * height / width + 1)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, len(pictures), figsize=size, layout="constrained")
        for column, (name, picture) in zip(panels.T, pictures.items(), strict=True):
            column[0].imshow(picture, cmap="gray", vmin=0, vmax=1)
            title = f"{name}\n{found[name]['cost']}, {found[name]['psnr']:.1f} dB" if name in found else f"{name}\n"
            column[0].set_title(title, fontsize=10)
            if name in found:
                column[1].imshow(np.abs(original - picture), cmap="magma", vmin=0, vmax=worst)
            for axes in column:
                axes.axis("off")
        figure.savefig(path, dpi=80)
        plt.close(figure)


if __name__ == "__main__":
    main(parse(Config))
