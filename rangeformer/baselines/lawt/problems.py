"""Fresh examples of the tasks, with exact answers.

Grouped by task and size so that each group is one batch of LAPACK's.
"""

from dataclasses import dataclass, replace

import torch

from rangeformer.baselines.lawt.generators import (
    COEFFICIENTS,
    SPECTRAL_DISTRIBUTIONS,
    coefficients,
    draw_scales,
    mixture,
    with_signs,
)
from rangeformer.baselines.lawt.symbols import MAX_DIMENSION
from rangeformer.baselines.lawt.tasks import TASKS, Shape, answer
from rangeformer.shapes import Bool, Float, Tensor

_INVERSE_ERROR = 1e-10  # max |M M^-1 - I| beyond which a matrix is drawn anew, as in the paper's program
_MAX_ATTEMPTS = 100


@dataclass(frozen=True)
class Problems:
    """Examples of one task and size.

    Attributes:
        task: Which.
        shape: m and n.
        input: What is read, float64, not rounded, with its noise.
        output: The exact answer of the input without noise, with noise of its own where that is asked for.
        clean: The input without noise.
    """

    task: str
    shape: Shape
    input: Float[Tensor, "b p q"]
    output: Float[Tensor, "b r s"]
    clean: Float[Tensor, "b p q"]


@dataclass(frozen=True)
class Source:
    """What examples are drawn from."""

    tasks: tuple[str, ...] = ("transposition",)
    """Names of the tasks; with several, each example draws one, and a token says which."""
    rows: tuple[int, int] = (5, 5)
    """Least and largest number of rows m, uniform."""
    columns: tuple[int, int] | None = None
    """Least and largest number of columns n, drawn independently; None for square matrices."""
    coefficients: str = "uniform"
    """Law of the coefficients: one of `COEFFICIENTS`."""
    scale: tuple[int, int] = (10, 10)
    """Least and largest A, an integer drawn for every matrix: coefficients are uniform on [-A, A], or as large."""
    negative_share: float = 0.5
    """Probability that a coefficient is negative; 0.5 where inputs are symmetric."""
    laws: tuple[str, ...] = ("semicircle",)
    """Distributions of the eigenvalues of symmetric inputs, one drawn for every matrix."""
    input_noise: float = 0.0
    """Standard deviation of Gaussian noise on the inputs, relative to that of the coefficients, A / sqrt(3)."""
    output_noise: float = 0.0
    """Standard deviation of Gaussian noise on the outputs, relative to the root mean square of each output."""
    fixed_signs: bool = False
    """Fix the signs of eigenvectors and singular vectors, which the paper left to LAPACK."""

    def __post_init__(self) -> None:
        """Reject what would fail only after minutes.

        Raises:
            ValueError: Unknown tasks or distributions, or impossible numbers.
        """
        for name, known in (("tasks", tuple(TASKS)), ("laws", SPECTRAL_DISTRIBUTIONS)):
            values = getattr(self, name)
            if not values or set(values) - set(known) or len(set(values)) < len(values):
                raise ValueError(f"`{name}` must hold some of {list(known)}, each once. Got {list(values)}.")
        if self.coefficients not in COEFFICIENTS:
            raise ValueError(f"`coefficients` must be one of {list(COEFFICIENTS)}. Got {self.coefficients!r}.")
        for name, bounds in (("rows", self.rows), ("columns", self.columns or self.rows)):
            if not 1 <= bounds[0] <= bounds[1] <= MAX_DIMENSION:
                raise ValueError(f"`{name}` must be 1 <= least <= largest <= {MAX_DIMENSION}. Got {bounds}.")
        if self.columns is not None and self.square:
            raise ValueError(
                f"`columns` must be None with tasks of square matrices, {self.square}. Got {self.columns}."
            )
        if not 1 <= self.scale[0] <= self.scale[1]:
            raise ValueError(f"`scale` must be 1 <= least <= largest. Got {self.scale}.")
        if not 0 <= self.negative_share <= 1:
            raise ValueError(f"`negative_share` must be within [0, 1]. Got {self.negative_share}.")
        if self.negative_share != 0.5 and self.symmetric:
            raise ValueError(
                f"`negative_share` must be 0.5 with tasks of symmetric matrices, {self.symmetric}. "
                f"Got {self.negative_share}."
            )
        if min(self.input_noise, self.output_noise) < 0:
            raise ValueError("`input_noise` and `output_noise` must not be negative.")

    @property
    def square(self) -> list[str]:
        """The tasks of square matrices among those that are asked."""
        return [task for task in self.tasks if TASKS[task].square]

    @property
    def symmetric(self) -> list[str]:
        """The tasks of symmetric matrices among those that are asked."""
        return [task for task in self.tasks if TASKS[task].symmetric]

    @property
    def joint(self) -> bool:
        """Whether sequences say which task they belong to."""
        return len(self.tasks) > 1

    def shapes(self) -> list[tuple[str, Shape]]:
        """Every task with its largest m and n: what sequences must have room for."""
        largest = (self.rows[1], (self.columns or self.rows)[1])
        shapes = [(task, largest) for task in self.tasks]
        for task, (m, n) in shapes:
            if max(*TASKS[task].input_shape(m, n), *TASKS[task].output_shape(m, n)) > MAX_DIMENSION:
                raise ValueError(f"`rows` and `columns` are too large for {task}: {MAX_DIMENSION} is the largest side.")
        return shapes


def draw_problems(
    source: Source, count: int, generator: torch.Generator, *, limits: tuple[float, float] = (1e101, 1e101)
) -> list[Problems]:
    """Draw examples, in groups of one task and size.

    Args:
        source: What from.
        count: How many in all.
        generator: Source of everything random; its device is that of the examples.
        limits: Numbers in inputs and outputs stay below these, else the example is drawn anew.

    Returns:
        The groups, in an order that says nothing.

    Raises:
        RuntimeError: If the limits leave nothing.

    Example:
        >>> import torch
        >>> from rangeformer.baselines.lawt import Source, draw_problems
        >>> groups = draw_problems(Source(tasks=("inversion",), rows=(3, 3)), 4, torch.Generator().manual_seed(0))
        >>> [(group.task, tuple(group.output.shape)) for group in groups]
        [('inversion', (4, 3, 3))]
    """
    columns = source.columns
    kinds = [_uniform((0, len(source.tasks) - 1), count, generator), _uniform(source.rows, count, generator)]
    kinds.append(kinds[1] if columns is None else _uniform(columns, count, generator))
    distinct, counts = torch.stack(kinds, 1).unique(dim=0, return_counts=True)
    return [
        _draw(source, source.tasks[task], (m, n), number, generator, limits)
        for (task, m, n), number in zip(distinct.tolist(), counts.tolist(), strict=True)
    ]


def _uniform(bounds: tuple[int, int], count: int, generator: torch.Generator) -> Tensor:
    if bounds[0] == bounds[1]:
        return torch.full((count,), bounds[0], device=generator.device)
    return torch.randint(bounds[0], bounds[1] + 1, (count,), generator=generator, device=generator.device)


def _draw(
    source: Source, task: str, shape: Shape, count: int, generator: torch.Generator, limits: tuple[float, float]
) -> Problems:
    """One group; what cannot be written is drawn anew."""
    drawn = _attempt(source, task, shape, count, generator)
    for _ in range(_MAX_ATTEMPTS):
        bad = ~_acceptable(drawn, limits)
        if not bad.any():
            return drawn
        again = _attempt(source, task, shape, int(bad.sum()), generator)
        for name in ("input", "output", "clean"):
            getattr(drawn, name)[bad] = getattr(again, name)
    raise RuntimeError(f"No example of {task} {shape} within the limits {limits} after {_MAX_ATTEMPTS} attempts.")


def _attempt(source: Source, task: str, shape: Shape, count: int, generator: torch.Generator) -> Problems:
    scales = draw_scales(source.scale, count, generator)
    matter = TASKS[task]
    if matter.symmetric:
        clean = mixture(source.laws, scales, shape[0], source.coefficients, generator)
    else:
        clean = coefficients(scales, matter.input_shape(*shape), source.coefficients, generator)
        if source.negative_share != 0.5:
            clean = with_signs(clean, source.negative_share, generator)
    output = answer(task, clean, fixed_signs=source.fixed_signs)
    # a transpose is a view: what is drawn anew is written in place, and must not reach the input
    problems = Problems(task, shape, clean, output.contiguous().clone(), clean)
    if source.input_noise:
        noise = source.input_noise * scales.view(-1, 1, 1) / 3**0.5
        problems = replace(problems, input=clean + noise * _normal(clean, generator))
    if source.output_noise:
        noise = source.output_noise * output.square().mean((1, 2), keepdim=True).sqrt()
        problems = replace(problems, output=output + noise * _normal(output, generator))
    return problems


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype)


def _acceptable(problems: Problems, limits: tuple[float, float]) -> Bool[Tensor, " b"]:
    """Whether the numbers can be written, and an inverse is one."""
    fine = (problems.input.abs().amax((1, 2)) < limits[0]) & (problems.output.abs().amax((1, 2)) < limits[1])
    if problems.task == "inversion":
        inverse = answer("inversion", problems.clean)  # the output may have noise
        identity = torch.eye(problems.shape[0], dtype=inverse.dtype, device=inverse.device)
        error = (problems.clean @ inverse - identity).abs().amax((1, 2))
        fine &= error <= _INVERSE_ERROR  # NaN is not
    return fine
