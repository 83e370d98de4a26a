"""Sketches that read nothing of A: Gaussian, sparse signs, a subsampled trigonometric transform."""

import math

import numpy as np
import scipy.fft
import torch

from rangeformer.operators import MatrixOperator
from rangeformer.randomness import draw_normal
from rangeformer.shapes import Tensor
from rangeformer.validation import check_count
from sketching.sketches.base import Sketch


class Gaussian(Sketch):
    """Independent N(0, 1) entries (Halko, Martinsson & Tropp 2011, Section 4.1)."""

    def draw(
        self,
        operator: MatrixOperator,
        num_columns: int,
        *,
        max_rows: int | None = None,
        generator: torch.Generator,
    ) -> Tensor:
        """See `Sketch.draw`."""
        shape = (operator.num_columns, num_columns)
        return draw_normal(shape, generator, dtype=operator.dtype, device=operator.device)


class SparseSign(Sketch):
    """A few random signs in every row of Omega (Tropp, Yurtsever, Udell & Cevher 2019, Section 3.3).

    Args:
        num_nonzeros: Nonzeros in every row, at most l of them; 8 is what the reference finds safe.
    """

    def __init__(self, num_nonzeros: int = 8):
        check_count("num_nonzeros", num_nonzeros, least=1)
        self.num_nonzeros = num_nonzeros

    def draw(
        self,
        operator: MatrixOperator,
        num_columns: int,
        *,
        max_rows: int | None = None,
        generator: torch.Generator,
    ) -> Tensor:
        """See `Sketch.draw`."""
        n, count = operator.num_columns, min(self.num_nonzeros, num_columns)
        device = generator.device
        # the first `count` of a random order of the columns, for every row its own
        order = torch.rand(n, num_columns, generator=generator, device=device).topk(count, dim=-1).indices
        signs = torch.randint(0, 2, (n, count), generator=generator, device=device).to(operator.dtype) * 2 - 1
        omega = torch.zeros(n, num_columns, dtype=operator.dtype, device=device).scatter_(-1, order, signs)
        return (omega * (num_columns / count) ** 0.5).to(operator.device)


class SubsampledTrig(Sketch):
    """Random columns of E F with random signs E and the orthonormal cosine transform F.

    Twice (Tropp 2019, Section 3.2).

    Omega = E F E' F R, R choosing l columns: orthonormal columns, close to Haar. The matrix is written out, since A may
    be known through products alone; its columns cost O(n l log n).
    """

    def draw(
        self,
        operator: MatrixOperator,
        num_columns: int,
        *,
        max_rows: int | None = None,
        generator: torch.Generator,
    ) -> Tensor:
        """See `Sketch.draw`."""
        n, device = operator.num_columns, generator.device
        signs = torch.randint(0, 2, (2, n, 1), generator=generator, device=device).cpu().numpy() * 2.0 - 1.0
        chosen = torch.randperm(n, generator=generator, device=device)[:num_columns].cpu().numpy()
        omega = np.zeros((n, num_columns))
        omega[chosen, np.arange(num_columns)] = 1.0
        for sign in signs:
            omega = sign * scipy.fft.dct(omega, axis=0, norm="ortho")
        return torch.from_numpy(omega * math.sqrt(n)).to(operator.dtype).to(operator.device)
