"""Array types for annotations, at no cost to those who only import the package.

Annotations read ``Float[Tensor, "*batch n k"]`` throughout. When the caller has imported
`jaxtyping` before us (our tests do, with beartype as the checker), these are its types and every
shape is checked at run time; otherwise the brackets mean just `torch.Tensor`.
"""

import sys
from typing import TYPE_CHECKING

from torch import Tensor as Tensor

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool as Bool
    from jaxtyping import Float as Float
    from jaxtyping import Int as Int
else:

    class _TensorOfShape:
        def __class_getitem__(cls, item: object) -> type[Tensor]:
            return Tensor

    Bool = Float = Int = _TensorOfShape
