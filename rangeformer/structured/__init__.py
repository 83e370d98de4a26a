"""Laws of structured matrices, to train on and to test with.

`draw(name, n, ...)` returns a batch of symmetric positive definite A = B + s I with B positive semidefinite of mean
diagonal one and log-uniform noise s in [1e-4, 1]. Every draw has its own random parameters and comes from the
generator alone. `LAWS` is the registry, name -> function of (n, generator, dtype) that returns one B; `KERNEL_LAWS`,
`ALGEBRAIC_LAWS` and `PAPER_LAWS` list its parts.
"""

from rangeformer.structured.kernels import SHAPES as SHAPES
from rangeformer.structured.kernels import kernel_matrix as kernel_matrix
from rangeformer.structured.registry import ALGEBRAIC_LAWS as ALGEBRAIC_LAWS
from rangeformer.structured.registry import KERNEL_LAWS as KERNEL_LAWS
from rangeformer.structured.registry import LAWS as LAWS
from rangeformer.structured.registry import PAPER_LAWS as PAPER_LAWS
from rangeformer.structured.registry import Law as Law
from rangeformer.structured.registry import StructuredMatrices as StructuredMatrices
from rangeformer.structured.registry import draw as draw
