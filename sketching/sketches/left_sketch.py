"""Something to look at where A is known through products alone: a few random combinations of its rows.

G^T A for a thin Gaussian G has independent rows with second moment A^T A, which is all that a sketch asks of a sample;
unlike sampled rows none of A's is missing from it. It costs a pass of a few vectors. (This is the first half of a half
power iteration; Halko, Martinsson & Tropp 2011, Section 4.5.)
"""

import torch

from rangeformer.operators import MatrixOperator, as_operator
from rangeformer.randomness import draw_normal
from rangeformer.shapes import Float, Tensor
from sketching.algorithms.error_estimate import check_finite


def left_sketch(operator: MatrixOperator, count: int, generator: torch.Generator) -> MatrixOperator:
    """G^T A as a matrix whose rows may be read.

    Args:
        operator: A, `(m, n)`, that can be multiplied from the left.
        count: c, rows of G^T A.
        generator: Source of G.

    Returns:
        A `(c, n)` operator with cost counts of its own: what was spent stands in those of A.

    Raises:
        ValueError: If A is not finite.
    """
    shape = (operator.num_rows, count)
    product = operator.rmatmul(draw_normal(shape, generator, dtype=operator.dtype, device=operator.device))
    check_finite(product)
    return as_operator(product.mT.contiguous())


def in_no_order(omega: Float[Tensor, "n l"], generator: torch.Generator) -> Float[Tensor, "n l"]:
    """The same span by columns of which none comes first.

    "auto" asks what the last columns have gained. Best first, those after a left sketch gain next to nothing even
    where another pass would gain much; after sampled rows, which leave less to be gained, that is what ends it in time.

    Args:
        omega: A sketch.
        generator: Source of the rotation.
    """
    size = (omega.shape[1],) * 2
    return omega @ torch.linalg.qr(draw_normal(size, generator, dtype=omega.dtype, device=omega.device)).Q
