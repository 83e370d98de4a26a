"""Stiffness of beams and frames: bending and stretching at once, in degrees of freedom of different units.

Every matrix is assembled as B = C^T C from one row of C per integration point, so that it is symmetric and positive
semidefinite whatever the rounding. The condition number of bending grows as the fourth power of the length, as in the
bcsstk family of the Matrix Market.
"""

import math

import torch

from rangeformer.distributions.sampling import log_uniform, normal, rand, uniform
from rangeformer.shapes import Float, Int, Tensor

GAUSS_POINTS = (-(3**-0.5), 3**-0.5)
"""Two Gauss points integrate the square of a linear curvature exactly."""


def bending_rows(length: Float[Tensor, " e"], stiffness: Float[Tensor, " e"]) -> Float[Tensor, "e 2 4"]:
    """Rows c with c^T c = an Euler-Bernoulli element's stiffness in (w_1, theta_1, w_2, theta_2), w cubic.

    At a point x in [-1, 1] of an element of length l the curvature is
    (6 x w_1 + (3 x - 1) l theta_1 - 6 x w_2 + (3 x + 1) l theta_2) / l^2.
    """
    rows = []
    for x in GAUSS_POINTS:
        one = torch.ones_like(length)
        curvature = torch.stack([6 * x * one, (3 * x - 1) * length, -6 * x * one, (3 * x + 1) * length], dim=-1)
        rows.append((stiffness * length / 2).sqrt().unsqueeze(-1) * curvature / length.square().unsqueeze(-1))
    return torch.stack(rows, dim=1)


def gram_of_elements(
    rows: Float[Tensor, "e k d"], places: Int[Tensor, "e d"], num_freedoms: int, n: int
) -> Float[Tensor, "n n"]:
    """C^T C over the first n of all degrees of freedom; `places` says which one each column of an element is."""
    num_elements, num_rows, _ = rows.shape
    assembled = torch.zeros(num_elements, num_rows, num_freedoms, dtype=rows.dtype, device=rows.device)
    assembled.scatter_(2, places.unsqueeze(1).expand(-1, num_rows, -1), rows)
    free = assembled.reshape(-1, num_freedoms)[:, :n]
    return free.mT @ free


def _jumping(count: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """exp(0.3 e), times one constant on a random half of the elements in order."""
    values = (0.3 * normal(count, generator=generator, dtype=dtype)).exp()
    values[int(count * uniform(generator, 0, 1)) :] *= log_uniform(generator, 1e-3, 1e3)
    return values


def beam(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = stiffness of a clamped beam of cubic elements, w and theta of each node: EI_e int (w'')^2 dx summed over e.

    Drawn: lengths L exp(0.3 e), L ~ U_log[0.1, 100] (rotations are L^2 times as stiff as displacements), EI = exp(0.3
    e), jumping once by U_log[1e-3, 1e3].
    """
    count = math.ceil(n / 2)
    length = log_uniform(generator, 0.1, 100) * (0.3 * normal(count, generator=generator, dtype=dtype)).exp()
    rows = bending_rows(length, _jumping(count, generator, dtype))
    # the clamped node's degrees of freedom come last, where they are cut off
    first = torch.arange(-1, count - 1, device=generator.device).remainder(count + 1)
    nodes = torch.stack([first, torch.arange(count, device=generator.device)], dim=1)
    places = (2 * nodes.unsqueeze(-1) + torch.arange(2, device=generator.device)).reshape(count, 4)
    return gram_of_elements(rows, places, 2 * (count + 1), n)


def frame(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = stiffness of a plane frame, (u, v, theta) of each node of a jittered grid of beams, clamped at its foot.

    Every beam adds EA (stretch)^2 / l and EI int (bending'')^2 dx, turned by its direction.

    Drawn: cells of side L ~ U_log[0.1, 100], jitter 0.2 L, width 1..sqrt(nodes); EI = exp(0.3 e), jumping once by
    U_log[1e-3, 1e3]; EA = EI U_log[1, 1e4] / L^2.
    """
    device = generator.device
    count = math.ceil(n / 3)
    width = max(1, int(uniform(generator, 1, count**0.5 + 1)))
    height = math.ceil(count / width)
    number = torch.arange((height + 1) * width, device=device).reshape(height + 1, width)
    # the foot is the last row, so that cutting to the first n degrees of freedom clamps it
    ends = torch.cat(
        [
            torch.stack([number[:-1].reshape(-1), number[1:].reshape(-1)], dim=1),
            torch.stack([number[:-1, :-1].reshape(-1), number[:-1, 1:].reshape(-1)], dim=1),
        ]
    )
    points = torch.stack([number.remainder(width), number // width], dim=-1).reshape(-1, 2).to(dtype)
    side = log_uniform(generator, 0.1, 100)
    points = side * (points + 0.2 * (2 * rand(*points.shape, generator=generator, dtype=dtype) - 1))
    along = points[ends[:, 1]] - points[ends[:, 0]]
    length = torch.linalg.vector_norm(along, dim=1)
    cosine, sine = (along / length.unsqueeze(1)).unbind(1)
    bending = _jumping(len(ends), generator, dtype)
    stretching = bending * log_uniform(generator, 1, 1e4) / side**2
    w1, t1, w2, t2 = bending_rows(length, bending).unbind(-1)
    c, s = cosine.unsqueeze(1), sine.unsqueeze(1)
    bent = torch.stack([-s * w1, c * w1, t1, -s * w2, c * w2, t2], dim=-1)
    zero = torch.zeros_like(c)
    stretched = (stretching / length).sqrt()[:, None, None] * torch.stack([-c, -s, zero, c, s, zero], dim=-1)
    places = (3 * ends.unsqueeze(-1) + torch.arange(3, device=device)).reshape(-1, 6)
    return gram_of_elements(torch.cat([bent, stretched], dim=1), places, 3 * number.numel(), n)
