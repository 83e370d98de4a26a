"""Laws of structured matrices, to train on and to test with; docs/structured-laws.md shows every one.

`draw(name, n, ...)` returns a batch of symmetric positive definite A = B + s I with B positive semidefinite of mean
diagonal one and log-uniform noise s in [1e-4, 1]. `LAWS` is the registry, name -> function of (n, generator, dtype)
that returns one B; `KERNEL_LAWS`, `ALGEBRAIC_LAWS`, `PAPER_LAWS`, `PATTERN_LAWS` and `ENGINEERING_LAWS` are its parts.
`draw_matrix(name, (m, n), ...)` returns a batch of other matrices: `SYMMETRIC_LAWS`, `SQUARE_LAWS`,
`RECTANGULAR_LAWS`. Every draw has its own random parameters and comes from the generator alone.
"""

from rangeformer.distributions.general import RECTANGULAR_LAWS as RECTANGULAR_LAWS
from rangeformer.distributions.general import SQUARE_LAWS as SQUARE_LAWS
from rangeformer.distributions.general import SYMMETRIC_LAWS as SYMMETRIC_LAWS
from rangeformer.distributions.general import RectangularLaw as RectangularLaw
from rangeformer.distributions.general import draw_matrix as draw_matrix
from rangeformer.distributions.kernels import SHAPES as SHAPES
from rangeformer.distributions.kernels import kernel_matrix as kernel_matrix
from rangeformer.distributions.registry import ALGEBRAIC_LAWS as ALGEBRAIC_LAWS
from rangeformer.distributions.registry import ENGINEERING_LAWS as ENGINEERING_LAWS
from rangeformer.distributions.registry import KERNEL_LAWS as KERNEL_LAWS
from rangeformer.distributions.registry import LAWS as LAWS
from rangeformer.distributions.registry import PAPER_LAWS as PAPER_LAWS
from rangeformer.distributions.registry import PATTERN_LAWS as PATTERN_LAWS
from rangeformer.distributions.registry import Law as Law
from rangeformer.distributions.registry import StructuredMatrices as StructuredMatrices
from rangeformer.distributions.registry import draw as draw
