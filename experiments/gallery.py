"""Every distribution of `rangeformer.distributions` in one picture and one page.

What it is, what it looks like, how it decays.

`python -m experiments.gallery` draws docs/matrix-distributions.png and writes the tables of
docs/matrix-distributions.md anew from the distributions' docstrings.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import getdoc
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from experiments.common.options import option, parse
from experiments.common.pictures import STYLE, plt
from rangeformer import distributions as structured

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "matrix-distributions.md"
KINDS: dict[str, tuple[str, ...]] = {
    "kernels": structured.KERNEL_DISTRIBUTIONS,
    "algebraic": structured.ALGEBRAIC_DISTRIBUTIONS,
    "paper": structured.PAPER_DISTRIBUTIONS,
    "patterns": structured.PATTERN_DISTRIBUTIONS,
    "engineering": structured.ENGINEERING_DISTRIBUTIONS,
    "symmetric": tuple(structured.SYMMETRIC_DISTRIBUTIONS),
    "square": tuple(structured.SQUARE_DISTRIBUTIONS),
    "rectangular": tuple(structured.RECTANGULAR_DISTRIBUTIONS),
}
TITLES = {
    "kernels": "Kernels, positive semidefinite",
    "algebraic": "Spectra, products, graphs and grids, positive semidefinite",
    "paper": "Training distributions of the paper's RangeFormer, positive semidefinite",
    "patterns": "Patterns of equal and of zero entries, positive semidefinite",
    "engineering": "Stiffness matrices and networks, positive semidefinite",
    "symmetric": "Symmetric indefinite",
    "square": "Square unsymmetric",
    "rectangular": "Rectangular",
}
COLUMNS = 9
CELL, ROW, TITLE, BOX = 2.2, 1.4, 0.35, 1.0
"""In inches: what a distribution is wide and high, what a heading is high, and the side of a matrix."""
FIRST, SHADOW = "#1b7f79", "#9fb8b5"


@dataclass(frozen=True)
class Config:
    """Draw every distribution of structured matrices and tabulate their formulas."""

    size: int = option(96, "n; rectangular distributions are drawn n by 2 n / 3")
    seed: int = option(0, "of the first draw")
    num_draws: int = option(5, "spectra per distribution; the matrix of the first is shown")


def function_of(law: str) -> Callable[..., Tensor]:
    """The distribution's function, from whichever registry has it."""
    registries = (
        structured.DISTRIBUTIONS,
        structured.SYMMETRIC_DISTRIBUTIONS,
        structured.SQUARE_DISTRIBUTIONS,
        structured.RECTANGULAR_DISTRIBUTIONS,
    )
    return next(registry[law] for registry in registries if law in registry)


def describe(law: str) -> tuple[str, str]:
    """(formula, what is drawn) of a distribution: its docstring, split where a paragraph begins with `Drawn:`."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in (getdoc(function_of(law)) or "").split("\n\n")]
    drawn = [paragraph for paragraph in paragraphs if paragraph.startswith("Drawn: ")]
    if len(drawn) != 1:
        raise ValueError(f"The docstring of distribution {law!r} must have one paragraph that begins with 'Drawn: '.")
    formula = " ".join(paragraph for paragraph in paragraphs if paragraph not in drawn)
    return formula.rstrip("."), drawn[0].removeprefix("Drawn: ").rstrip(".")


def markdown(kind: str) -> str:
    """The table of one kind of distributions."""
    # a bar ends a cell even inside of code
    cells = [[law, *(text.replace("|", "\\|") for text in describe(law))] for law in KINDS[kind]]
    rows = ["| " + " | ".join(f"`{cell}`" for cell in row) + " |" for row in cells]
    return "\n".join(["| distribution | formula | drawn at random |", "|---|---|---|", *rows]) + "\n"


def render(page: str) -> str:
    """The page with everything between the markers of each kind written anew."""
    pattern = r"(?P<begin><!-- distributions: (?P<kind>\S+) -->)\n.*?(?P<end><!-- end of distributions -->)"
    return re.sub(pattern, lambda m: f"{m['begin']}\n{markdown(m['kind'])}{m['end']}", page, flags=re.DOTALL)


def draws(law: str, config: Config) -> Iterator[Tensor]:
    """Independent draws as the distribution's function returns them, without noise and scale."""
    n = config.size
    shape = (n, 2 * n // 3) if law in structured.RECTANGULAR_DISTRIBUTIONS else (n,)
    for seed in range(config.seed, config.seed + config.num_draws):
        yield function_of(law)(*shape, torch.Generator().manual_seed(seed), torch.float64)


def draw_gallery(path: Path, config: Config) -> None:
    """Matrix and log singular values of every distribution, grouped by kind, one pixel to an entry."""
    heights = [TITLE + ROW * math.ceil(len(laws) / COLUMNS) for laws in KINDS.values()]
    width, height = COLUMNS * CELL, sum(heights)
    with plt.rc_context({**STYLE, "font.size": 7, "axes.titlesize": 8, "axes.titlepad": 3}):
        figure = plt.figure(figsize=(width, height))

        def axes(left: float, top: float, wide: float):
            return figure.add_axes((left / width, 1 - (top + BOX) / height, wide / width, BOX / height))

        for number, (kind, laws) in enumerate(KINDS.items()):
            top = sum(heights[:number])
            figure.text(0.05 / width, 1 - (top + 0.1) / height, TITLES[kind], fontsize=11, weight="bold", va="top")
            for place, law in enumerate(laws):
                row, column = divmod(place, COLUMNS)
                left, below = 0.05 + column * CELL, top + TITLE + 0.15 + row * ROW
                matrices = list(draws(law, config))
                m, n = matrices[0].shape
                _draw_matrix(axes(left, below, BOX * n / m), law, matrices[0])
                _draw_spectra(axes(left + BOX + 0.38, below, CELL - BOX - 0.55), matrices)
        figure.savefig(path, dpi=config.size / BOX)
        plt.close(figure)
    # 256 colours without dithering look the same at a third of the size
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def _draw_matrix(axes, law: str, matrix: Tensor) -> None:
    # cube roots, so that small entries show beside large ones
    shown = matrix.sign() * matrix.abs() ** (1 / 3)
    limit = float(shown.abs().max())
    axes.imshow(shown.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto")
    axes.spines[:].set_visible(False)
    axes.set(xticks=[], yticks=[], title=law)


def _draw_spectra(axes, matrices: list[Tensor]) -> None:
    """Of all draws, the first on top; a singular value of exactly zero is drawn below the axis."""
    for number, matrix in reversed(list(enumerate(matrices))):
        values = torch.linalg.svdvals(matrix)
        levels = (values / values[0]).clamp_min(1e-20).log10().numpy()
        axes.plot(levels, color=SHADOW if number else FIRST, lw=0.8 if number else 1.5)
    last = min(matrices[0].shape)
    axes.set(xlim=(0, last), ylim=(-16.5, 0.6), xticks=[0, last], yticks=[0, -8, -16])
    axes.set_yticklabels(["1", "1e-8", "1e-16"])
    axes.tick_params(length=2, pad=2)


def main(config: Config, page: Path = PAGE) -> None:
    """Write the picture beside the page, and the page's tables."""
    draw_gallery(page.with_suffix(".png"), config)
    page.write_text(render(page.read_text()))


if __name__ == "__main__":
    main(parse(Config))
