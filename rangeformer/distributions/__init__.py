"""Distributions of structured matrices, to train on and to test with; docs/matrix-distributions.md shows every one.

`draw(name, n, ...)` returns a batch of symmetric positive definite A = B + s I with B positive semidefinite of mean
diagonal one and log-uniform noise s in [1e-4, 1]. `DISTRIBUTIONS` is the registry, name -> function of (n, generator,
dtype) that returns one B; `KERNEL_DISTRIBUTIONS`, `ALGEBRAIC_DISTRIBUTIONS`, `PAPER_DISTRIBUTIONS`,
`PATTERN_DISTRIBUTIONS` and `ENGINEERING_DISTRIBUTIONS` are its parts. `draw_matrix(name, (m, n), ...)` returns a batch
of other matrices: `SYMMETRIC_DISTRIBUTIONS`, `SQUARE_DISTRIBUTIONS`, `RECTANGULAR_DISTRIBUTIONS`. Every draw has its
own random parameters and comes from the generator alone.
"""

from rangeformer.distributions.general import RECTANGULAR_DISTRIBUTIONS as RECTANGULAR_DISTRIBUTIONS
from rangeformer.distributions.general import SQUARE_DISTRIBUTIONS as SQUARE_DISTRIBUTIONS
from rangeformer.distributions.general import SYMMETRIC_DISTRIBUTIONS as SYMMETRIC_DISTRIBUTIONS
from rangeformer.distributions.general import RectangularDistribution as RectangularDistribution
from rangeformer.distributions.general import draw_matrix as draw_matrix
from rangeformer.distributions.kernels import SHAPES as SHAPES
from rangeformer.distributions.kernels import kernel_matrix as kernel_matrix
from rangeformer.distributions.registry import ALGEBRAIC_DISTRIBUTIONS as ALGEBRAIC_DISTRIBUTIONS
from rangeformer.distributions.registry import DISTRIBUTIONS as DISTRIBUTIONS
from rangeformer.distributions.registry import ENGINEERING_DISTRIBUTIONS as ENGINEERING_DISTRIBUTIONS
from rangeformer.distributions.registry import KERNEL_DISTRIBUTIONS as KERNEL_DISTRIBUTIONS
from rangeformer.distributions.registry import PAPER_DISTRIBUTIONS as PAPER_DISTRIBUTIONS
from rangeformer.distributions.registry import PATTERN_DISTRIBUTIONS as PATTERN_DISTRIBUTIONS
from rangeformer.distributions.registry import Distribution as Distribution
from rangeformer.distributions.registry import StructuredMatrices as StructuredMatrices
from rangeformer.distributions.registry import draw as draw
