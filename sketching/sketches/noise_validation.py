"""How much noise a heavy-tailed matrix calls for, tried on the rows that were read as if they were all there are.

Rows that stand out and were not read are found by chance alone: by Gaussian noise in every column of the sketch. Too
little of it loses them; too much loses what the rows read have shown. So the whole procedure is validated: a third of
the rows plays those read, directions come from them, and the range of R (directions + noise) is asked what it misses of
R.
"""

import math

import torch

from rangeformer.randomness import draw_normal
from rangeformer.shapes import Float, Tensor
from sketching.sketches.base import filled
from sketching.sketches.row_space import leading_right_vectors

NOISES = (0.03, 0.12, math.inf)
"""Candidates beside the least; infinite is a Gaussian sketch."""
_NUM_DRAWS = 2
_CLEARLY = 0.8  # of what the least noise misses: the validation has fewer rows, and so overrates chance


def validated_noise(
    rows: Float[Tensor, "c n"], read: Tensor, num_columns: int, least: float, generator: torch.Generator
) -> float:
    """The noise under which least is missed.

    Args:
        rows: R, float64, weighted.
        read: `(c,)` boolean, the rows that play those read.
        num_columns: l, fewer than c.
        least: Noise where nothing calls for more.
        generator: Source of the noise.
    """
    n = rows.shape[1]
    directions = leading_right_vectors(rows[read], num_columns)
    images = [
        rows
        @ torch.cat(
            [
                filled(directions, num_columns, generator, dtype=rows.dtype),
                draw_normal((n, num_columns), generator, dtype=rows.dtype, device=rows.device),
            ],
            -1,
        )
        for _ in range(_NUM_DRAWS)
    ]
    candidates = (least, *NOISES)
    missed = [sum(_missed(rows, image, noise) for image in images) for noise in candidates]
    best = missed.index(min(missed))
    return candidates[best] if missed[best] < _CLEARLY * missed[0] else least


def _missed(rows: Float[Tensor, "c n"], image: Float[Tensor, "c k"], noise: float) -> float:
    """Energy of R outside the range of its image, the second half of whose columns is noise."""
    known, random = image.chunk(2, -1)
    Q = torch.linalg.qr(random if noise == math.inf else known + noise * random).Q
    return float((rows - Q @ (Q.mT @ rows)).square().sum())
