"""Laws of structured symmetric positive definite matrices, to train on and to test with.

`draw(name, n, ...)` returns a batch of A = B + s I with B positive semidefinite of mean diagonal one and
log-uniform noise s in [1e-4, 1]. Every draw has its own random parameters and comes from the generator alone.
`LAWS` is the registry, name -> function of (n, generator, dtype) that returns one B; `KERNEL_LAWS` and
`ALGEBRAIC_LAWS` list the two halves.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rangeformer.shapes import Float, Tensor

Law = Callable[[int, torch.Generator, torch.dtype], Tensor]
LAWS: dict[str, Law] = {}


@dataclass(frozen=True)
class StructuredMatrices:
    """A batch of matrices from one law.

    Attributes:
        law: Its name.
        matrix: `(b, n, n)`, A = B + noise I.
        noise: `(b,)`.
    """

    law: str
    matrix: Float[Tensor, "b n n"]
    noise: Float[Tensor, " b"]


def draw(
    law: str,
    n: int,
    batch_size: int = 1,
    *,
    generator: torch.Generator,
    noise_range: tuple[float, float] = (1e-4, 1.0),
    dtype: torch.dtype = torch.float64,
) -> StructuredMatrices:
    """Draw matrices from a law, on the generator's device.

    Args:
        law: A key of `LAWS`.
        n: Size.
        batch_size: b.
        generator: Source of all randomness; equal seeds on one device give equal matrices.
        noise_range: Ends of the log-uniform law of the noise, relative to the mean diagonal.
        dtype: Of the result.

    Returns:
        The matrices, exactly symmetric.
    """
    if law not in LAWS:
        raise ValueError(f"`law` must be one of {sorted(LAWS)}. Got {law!r}.")
    if n < 2 or batch_size < 1:
        raise ValueError(f"`n` must be at least 2 and `batch_size` at least 1. Got {n} and {batch_size}.")
    members = []
    for _ in range(batch_size):
        matrix = LAWS[law](n, generator, dtype)
        matrix = (matrix + matrix.mT) / 2
        members.append(matrix / matrix.diagonal().mean())
    matrices = torch.stack(members)
    low, high = (math.log(x) for x in noise_range)
    uniform = torch.rand(batch_size, generator=generator, device=generator.device, dtype=dtype)
    noise = (low + (high - low) * uniform).exp()
    matrices.diagonal(dim1=-2, dim2=-1).add_(noise.unsqueeze(-1))
    return StructuredMatrices(law, matrices, noise)


def _law(function: Law) -> Law:
    LAWS[function.__name__] = function
    return function


def _uniform(generator: torch.Generator, low: float | int, high: float | int) -> float:
    u = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    return low + (high - low) * u.item()


def _log_uniform(generator: torch.Generator, low: float | int, high: float | int) -> float:
    return math.exp(_uniform(generator, math.log(low), math.log(high)))


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """Uniform on low..high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator, device=generator.device).item())


def _normal(*shape: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=generator, device=generator.device, dtype=dtype)


def _rand(*shape: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return torch.rand(*shape, generator=generator, device=generator.device, dtype=dtype)


# ---- stationary kernels: B_ij = k(|(x_i - x_j) / l|), the input cloud is the law's name -----------------------------

SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "rbf": lambda r: (-r.square() / 2).exp(),
    "matern12": lambda r: (-r).exp(),
    "matern32": lambda r: (1 + 3**0.5 * r) * (-(3**0.5) * r).exp(),
    "matern52": lambda r: (1 + 5**0.5 * r + 5 * r.square() / 3) * (-(5**0.5) * r).exp(),
    "rational_quadratic": lambda r: 1 / (1 + r.square() / 2),
}


def kernel_matrix(points: Float[Tensor, "n d"], shape: str) -> Float[Tensor, "n n"]:
    """k(|x_i - x_j|) for a key of `SHAPES`, points already divided by their length-scales."""
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    return SHAPES[shape](distance)


def _kernel(points: Tensor, generator: torch.Generator) -> Tensor:
    """Random shape; ARD length-scales l_a = median-like distance x U_log[0.08, 1.5] x lognormal(0.7)."""
    n, d = points.shape
    points = (points - points.mean(0)) / points.std(0).clamp_min(1e-12)
    scales = _log_uniform(generator, 0.08, 1.5) * d**0.5
    anisotropy = (0.7 * _normal(d, generator=generator, dtype=points.dtype)).exp()
    names = list(SHAPES)
    return kernel_matrix(points / (scales * anisotropy), names[_integer(generator, 0, len(names) - 1)])


def _dimension(generator: torch.Generator) -> int:
    """Log-uniform in 1..20."""
    return min(20, int(_log_uniform(generator, 1, 21)))


@_law
def kernel_uniform(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Points x ~ U[0, 1]^d."""
    return _kernel(_rand(n, _dimension(generator), generator=generator, dtype=dtype), generator)


@_law
def kernel_gaussian(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Points x ~ N(0, C), C random with decaying spectrum: correlated columns, as tables of measurements have."""
    d = _dimension(generator)
    mixing = _normal(d, d, generator=generator, dtype=dtype) / d**0.5
    decay = torch.arange(1, d + 1, dtype=dtype, device=generator.device).pow(-_uniform(generator, 0.0, 1.5))
    points = (_normal(n, d, generator=generator, dtype=dtype) * decay) @ mixing
    return _kernel(points + 0.3 * _normal(n, d, generator=generator, dtype=dtype) * decay.min(), generator)


@_law
def kernel_clustered(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Points x = m_z + s_z e: 2..20 clusters of different widths and, by squared uniforms, different sizes."""
    d, count = _dimension(generator), _integer(generator, 2, 20)
    centres = _normal(count, d, generator=generator, dtype=dtype)
    widths = (_normal(count, generator=generator, dtype=dtype) - 1.5).exp()
    member = (count * _rand(n, generator=generator, dtype=dtype).square()).long().clamp_max(count - 1)
    points = centres[member] + widths[member, None] * _normal(n, d, generator=generator, dtype=dtype)
    return _kernel(points, generator)


@_law
def kernel_grid(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Points of a regular grid in 1..3 dimensions, the first n in random order."""
    d = _integer(generator, 1, 3)
    side = math.ceil(n ** (1 / d))
    axis = torch.arange(side, dtype=dtype, device=generator.device)
    points = torch.stack(torch.meshgrid(*[axis] * d, indexing="ij"), dim=-1).reshape(-1, d)
    chosen = torch.randperm(len(points), generator=generator, device=generator.device)[:n]
    return _kernel(points[chosen], generator)


@_law
def kernel_discretised(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Gaussian points of which half the coordinates are rounded to 2..20 levels, so many coincide."""
    d = _dimension(generator)
    points = _normal(n, d, generator=generator, dtype=dtype)
    for axis in range(0, d, 2):
        levels = _integer(generator, 2, 20)
        points[:, axis] = (points[:, axis] * levels / 4).round()
    return _kernel(points, generator)


@_law
def kernel_manifold(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Points x = tanh(u W) V + 0.02 e on a curved surface of 1..4 dimensions in up to 20."""
    d, inner = _dimension(generator), _integer(generator, 1, 4)
    u = _normal(n, inner, generator=generator, dtype=dtype)
    bent = torch.tanh(u @ _normal(inner, 16, generator=generator, dtype=dtype))
    points = bent @ _normal(16, d, generator=generator, dtype=dtype)
    return _kernel(points + 0.02 * _normal(n, d, generator=generator, dtype=dtype), generator)


@_law
def kernel_heavy_tailed(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Points x = e exp(0.8 e'), coordinate by coordinate: dense cores, far outliers."""
    d = _dimension(generator)
    spread = (0.8 * _normal(n, d, generator=generator, dtype=dtype)).exp()
    return _kernel(_normal(n, d, generator=generator, dtype=dtype) * spread, generator)


@_law
def kernel_periodic(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = exp(-2 sin^2(pi (t_i - t_j)) / l^2) k(|t_i - t_j| / m), t uniform on 1..10 periods."""
    t = _rand(n, 1, generator=generator, dtype=dtype) * _uniform(generator, 1, 10)
    circle = torch.cat([(2 * torch.pi * t).cos(), (2 * torch.pi * t).sin()], dim=1)
    length = _log_uniform(generator, 0.2, 2)
    # |circle_i - circle_j|^2 = 4 sin^2(pi (t_i - t_j))
    return kernel_matrix(circle / length, "rbf") * kernel_matrix(t / _log_uniform(generator, 0.5, 10), "matern32")


@_law
def kernel_warped(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Gibbs' nonstationary kernel in one dimension times a stationary one in others, rows scaled by exp(0.5 e).

    B_ij = sqrt(2 l_i l_j / (l_i^2 + l_j^2)) exp(-(x_i - x_j)^2 / (l_i^2 + l_j^2)) (Gibbs 1997),
    l = a exp(sin 3x).
    """
    x = _normal(n, generator=generator, dtype=dtype)
    lengths = _log_uniform(generator, 0.02, 0.5) * (3 * x).sin().exp()
    squares = lengths.square()[:, None] + lengths.square()
    gibbs = (2 * lengths[:, None] * lengths / squares).sqrt() * (-(x[:, None] - x).square() / squares).exp()
    other = _kernel(_normal(n, _integer(generator, 1, 4), generator=generator, dtype=dtype), generator)
    amplitude = (0.5 * _normal(n, generator=generator, dtype=dtype)).exp()
    return amplitude[:, None] * gibbs * other * amplitude


# ---- matrices without points ----------------------------------------------------------------------------------------


@_law
def spectral_decay(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = Q diag(d) Q^T, Q Haar; d_j = j^-a, exp(-a j / n), or a logistic step at a random place."""
    basis, _ = torch.linalg.qr(_normal(n, n, generator=generator, dtype=dtype))
    j = torch.arange(1, n + 1, dtype=dtype, device=generator.device)
    kind = _integer(generator, 0, 2)
    if kind == 0:
        values = j.pow(-_uniform(generator, 0.3, 2.0))
    elif kind == 1:
        values = (-_log_uniform(generator, 2, 200) * j / n).exp()
    else:
        values = torch.sigmoid(-(j - n * _uniform(generator, 0.02, 0.5)) / (n * _log_uniform(generator, 1e-3, 0.2)))
    return (basis * values) @ basis.mT


@_law
def low_rank(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = G diag(d) G^T + 1e-2 diag(u), G n x r Gaussian, r log-uniform in 2..n/4, d_j = j^-a, u uniform."""
    rank = max(2, int(_log_uniform(generator, 2, max(3, n / 4))))
    basis = _normal(n, rank, generator=generator, dtype=dtype)
    values = torch.arange(1, rank + 1, dtype=dtype, device=generator.device).pow(-_uniform(generator, 0, 2))
    return (basis * values) @ basis.mT + 1e-2 * torch.diag(_rand(n, generator=generator, dtype=dtype))


@_law
def wishart(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = X X^T, X n x m, m uniform in n/4..2n; entries Gaussian, Laplace or uniform."""
    columns = max(1, int(n * _uniform(generator, 0.25, 2.0)))
    kind = _integer(generator, 0, 2)
    entries = _normal(n, columns, generator=generator, dtype=dtype)
    if kind == 1:
        uniform = _rand(n, columns, generator=generator, dtype=dtype).clamp(1e-6, 1 - 1e-6)
        entries = (uniform - 0.5).sign() * (1 - 2 * (uniform - 0.5).abs()).log()
    elif kind == 2:
        entries = _rand(n, columns, generator=generator, dtype=dtype) - 0.5
    return entries @ entries.mT


@_law
def graph_laplacian(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = (L + a I)^-1 or L: L the Laplacian of a k-nearest-neighbour graph of random points, weights lognormal."""
    points = _rand(n, _integer(generator, 1, 3), generator=generator, dtype=dtype)
    distance = torch.cdist(points, points)
    k = min(n - 1, _integer(generator, 3, 8))
    nearest = distance.fill_diagonal_(torch.inf).topk(k, largest=False).indices
    weights = torch.zeros(n, n, dtype=dtype, device=generator.device)
    weights.scatter_(1, nearest, (0.5 * _normal(n, k, generator=generator, dtype=dtype)).exp())
    weights = torch.maximum(weights, weights.mT)
    laplacian = torch.diag(weights.sum(1)) - weights
    return _maybe_inverted(laplacian, generator)


@_law
def stencil(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = L + a I or its inverse: five-point -div(kappa grad) on a grid cut to n nodes.

    kappa jumps between two values (ratio to 1e3) on a random half-plane, times an anisotropy of up to 1e2 in y.
    """
    side = math.ceil(n**0.5)
    row, column = torch.meshgrid(*[torch.arange(side, device=generator.device)] * 2, indexing="ij")
    inside = (
        row * _uniform(generator, -1, 1) + column * _uniform(generator, -1, 1) > side * _uniform(generator, -0.5, 0.5)
    ).reshape(-1)
    conductivity = torch.where(inside, _log_uniform(generator, 1, 1e3), 1.0).to(dtype)
    number = torch.arange(side * side, device=generator.device).reshape(side, side)
    weights = torch.zeros(side * side, side * side, dtype=dtype, device=generator.device)
    anisotropy = _log_uniform(generator, 1, 100)
    for first, second, factor in (
        (number[:-1].reshape(-1), number[1:].reshape(-1), anisotropy),
        (number[:, :-1].reshape(-1), number[:, 1:].reshape(-1), 1.0),
    ):
        # harmonic mean: the flux through the face between two cells
        edge = factor * 2 / (1 / conductivity[first] + 1 / conductivity[second])
        weights[first, second] = edge
        weights[second, first] = edge
    laplacian = (torch.diag(weights.sum(1)) - weights)[:n, :n]
    return _maybe_inverted(laplacian, generator)


def _maybe_inverted(laplacian: Tensor, generator: torch.Generator) -> Tensor:
    """L + a I or, two times in three, its inverse: the precision or the covariance; a relative to mean diag L."""
    shift = laplacian.diagonal().mean() * _log_uniform(generator, 1e-3, 1e-1)
    shifted = laplacian + shift * torch.eye(len(laplacian), dtype=laplacian.dtype, device=laplacian.device)
    if _integer(generator, 0, 2) == 0:
        return shifted
    return torch.cholesky_inverse(torch.linalg.cholesky(shifted))


@_law
def toeplitz(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = sum_m w_m rho_m^|i-j| cos(omega_m (i-j)): autocovariance of a mixture of damped oscillations."""
    lag = torch.arange(n, dtype=dtype, device=generator.device)
    column = torch.zeros(n, dtype=dtype, device=generator.device)
    for _ in range(_integer(generator, 1, 4)):
        decay, frequency = _log_uniform(generator, 2 / n, 0.5), _uniform(generator, 0, 1.0)
        column = column + _uniform(generator, 0.1, 1) * (-decay * lag).exp() * (frequency * lag).cos()
    index = torch.arange(n, device=generator.device)
    return column[(index[:, None] - index).abs()]


@_law
def kronecker(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = (B1 x B2), cut to its leading n x n block: B1 a kernel on a line, B2 a Wishart or kernel matrix."""
    first = max(2, int(n**0.5))
    second = math.ceil(n / first)
    one = _kernel(_rand(first, 1, generator=generator, dtype=dtype), generator)
    if _integer(generator, 0, 1):
        root = _normal(second, second + 2, generator=generator, dtype=dtype) / second**0.5
        two = root @ root.mT
    else:
        two = _kernel(_normal(second, 2, generator=generator, dtype=dtype), generator)
    return torch.kron(one, two)[:n, :n]


@_law
def badly_scaled(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = D K D, K a kernel of Gaussian points, D = diag(exp(s e)), s in 0.3..2: rows of very different units."""
    matrix = _kernel(_normal(n, _dimension(generator), generator=generator, dtype=dtype), generator)
    scale = (_uniform(generator, 0.3, 2.0) * _normal(n, generator=generator, dtype=dtype)).exp()
    return scale[:, None] * matrix * scale


KERNEL_LAWS = tuple(name for name in LAWS if name.startswith("kernel_"))
ALGEBRAIC_LAWS = tuple(name for name in LAWS if not name.startswith("kernel_"))
