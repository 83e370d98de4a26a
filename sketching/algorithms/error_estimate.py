"""The error of a range from vectors that took no part in it.

For w ~ N(0, I) independent of Q, E |(I - Q Q^T) A w|^2 = |A - Q Q^T A|_F^2 whatever the sketch was, learned or not;
leave-one-out (Epperly & Tropp, "Efficient error and variance estimation for randomized matrix computations", 2024,
arXiv:2207.06342) needs exchangeable columns, which only an oblivious sketch has. The vectors ride along in a product
that is made anyway.
"""

import math
from dataclasses import dataclass

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.randomness import draw_normal
from rangeformer.shapes import Float, Tensor

NUM_TEST_VECTORS = 10
_NUM_DEVIATIONS = 2.5  # of the mean's standard error, for a promise that holds in 99 of 100 runs


@dataclass(frozen=True)
class Missed:
    """Squared Frobenius norm of A - Q Q^T A.

    Attributes:
        mean: Unbiased estimate.
        upper: What it is most likely not above.
    """

    mean: float
    upper: float


def draw_test_vectors(operator: MatrixOperator, generator: torch.Generator) -> Float[Tensor, "n t"]:
    """`NUM_TEST_VECTORS` Gaussian vectors in A's dtype.

    Args:
        operator: A.
        generator: Source.
    """
    shape = (operator.num_columns, NUM_TEST_VECTORS)
    return draw_normal(shape, generator, dtype=operator.dtype, device=operator.device)


def missed_energy(Q: Float[Tensor, "m k"], test_images: Float[Tensor, "m t"]) -> Missed:
    """How much of A the range of Q misses.

    Args:
        Q: Orthonormal columns.
        test_images: A w for the test vectors w.
    """
    outside = (test_images - Q @ (Q.mT @ test_images)).to(torch.float64)
    energies = outside.square().sum(0)
    mean = float(energies.mean())
    deviation = float(energies.std()) / len(energies) ** 0.5
    return Missed(mean, mean + _NUM_DEVIATIONS * deviation)


def check_finite(product: Float[Tensor, "m k"]) -> None:
    """A product with A holds no NaN or infinity.

    Args:
        product: A Omega.

    Raises:
        ValueError: If it does.
    """
    peak = float(product.abs().max()) if product.numel() else 0.0
    if not math.isfinite(peak):
        raise ValueError("`A` must be finite. Got NaN or infinity in a product with it.")
