"""SVD of a matrix that can be looked at once: rows come by, or A = sum of updates, and are gone.

Tropp, Yurtsever, Udell & Cevher, "Streaming low-rank matrix approximation with an application to scientific
simulation", SIAM J. Sci. Comput. 2019, Algorithms 3.1-3.4: a range sketch Y = A Omega, a co-range sketch X = Upsilon A
and a core Phi A Psi, all linear in A. Their two parameters are k = 2 rank + 1 and s = 2 k + 1, as in Section 5.4 there.
"""

import math
from dataclasses import replace
from typing import Any

import torch

from rangeformer.randomness import SKETCH, draw_normal, generator_or_default
from rangeformer.shapes import Float, Tensor
from rangeformer.validation import check_count
from sketching.algorithms.error_estimate import NUM_TEST_VECTORS, check_finite
from sketching.arguments import check_rank, one_matrix
from sketching.results import LowRank
from sketching.scaled_operator import ScaledOperator, exponent_for, restored, times_power_of_two

_NUM_DEVIATIONS = 2.5  # of the standard error of what the answer and A have in common


class OneViewSVD:
    """The sketches of a matrix seen through linear updates, and its approximation whenever asked.

    Args:
        shape: `(m, n)` of A.
        rank: Triplets wanted.
        dtype: Of A and the result.
        device: Of A and the result.
        generator: Source of all randomness; a fixed one if None.

    Example:
        >>> import torch
        >>> from sketching import OneViewSVD
        >>> view = OneViewSVD((6, 4), 1)
        >>> for i in range(6):
        ...     view.update_rows(torch.tensor([i]), torch.full((1, 4), float(i)))
        >>> round(view.svd().S.item(), 3)  # sqrt(4 * 55)
        14.832
    """

    def __init__(
        self,
        shape: tuple[int, int],
        rank: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        generator: torch.Generator | None = None,
    ):
        m, n = shape
        check_count("rank", rank, least=1)
        if rank > min(m, n):
            raise ValueError(f"`rank` must be at most min(m, n) = {min(m, n)}. Got {rank}.")
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"`dtype` must be torch.float32 or torch.float64. Got {dtype}.")
        generator = generator_or_default(generator, SKETCH)
        self.shape, self.rank, self.dtype, self.device = (m, n), rank, dtype, torch.device(device)
        k = min(2 * rank + 1, m, n)
        s = min(2 * k + 1, m, n)

        def draw(*size: int) -> Tensor:
            return draw_normal(size, generator, dtype=dtype, device=self.device)

        self._omega, self._upsilon, self._tests = draw(n, k), draw(k, m), draw(n, NUM_TEST_VECTORS)
        self._phi, self._psi = draw(s, m), draw(n, s)
        self._range, self._corange = self._zeros(m, k), self._zeros(k, n)
        self._core, self._test_images = self._zeros(s, s), self._zeros(m, NUM_TEST_VECTORS)
        self.num_matvecs = 0

    @torch.no_grad()
    def update_rows(self, index: Tensor, rows: Float[Tensor, "b n"]) -> None:
        """A[index] += rows, each row of A seen at most once if the stream is to be read in one pass.

        Args:
            index: `(b,)` distinct row numbers.
            rows: `(b, n)` what comes.

        Raises:
            ValueError: If shapes do not fit, or `rows` is not finite.
        """
        if rows.shape != (len(index), self.shape[1]):
            raise ValueError(f"`rows` must have shape {(len(index), self.shape[1])}. Got {tuple(rows.shape)}.")
        rows = rows.to(self.dtype)
        check_finite(rows)
        self._range.index_add_(0, index, rows @ self._omega)
        self._test_images.index_add_(0, index, rows @ self._tests)
        self._corange += self._upsilon[:, index] @ rows
        self._core += self._phi[:, index] @ (rows @ self._psi)
        self.num_matvecs += self._omega.shape[1] + self._corange.shape[0] + self._core.shape[0] + NUM_TEST_VECTORS

    @torch.no_grad()
    def update(self, A: Any) -> None:
        """A += the matrix given, multiplied from both sides: two products, which one look at it can serve.

        Args:
            A: `(m, n)`, anything `rangeformer.as_operator` reads.

        Raises:
            ValueError: If the shape does not fit, or A is not finite.
        """
        operator = one_matrix(A)
        if tuple(operator.shape) != self.shape:
            raise ValueError(f"`A` must have shape {self.shape}. Got {tuple(operator.shape)}.")
        k = self._omega.shape[1]
        right = operator.matmul(torch.cat([self._omega, self._psi, self._tests], -1).to(operator.dtype))
        right = right.to(self.dtype)
        check_finite(right)
        image, core, test_images = right.tensor_split([k, k + self._psi.shape[1]], -1)
        self._range += image
        self._test_images += test_images
        self._core += self._phi @ core
        self._corange += operator.rmatmul(self._upsilon.mT.to(operator.dtype)).mT.to(self.dtype)
        self.num_matvecs += right.shape[1] + self._corange.shape[0]

    def svd(self) -> LowRank:
        """The approximation of what has been seen so far.

        Returns:
            The factors; the error is estimated on test vectors that took no part in them. Where that of the sketches'
            answer is no less than zero's, 1, singular values are shrunk until it is, and `converged` is False.

        Raises:
            ValueError: If the sketches, or singular values, have left the range of the type.
        """
        return self._approximation(self._scaled_exponent())

    def _approximation(self, exponent: int) -> LowRank:
        """That of 2^-exponent A, singular values restored."""
        image, coimage, core, test_images = (
            times_power_of_two(part, -exponent) for part in (self._range, self._corange, self._core, self._test_images)
        )
        Q = torch.linalg.qr(image).Q.to(torch.float64)
        P = torch.linalg.qr(coimage.mT).Q.to(torch.float64)
        left = self._phi.to(torch.float64) @ Q
        right = P.mT @ self._psi.to(torch.float64)
        core = torch.linalg.pinv(left) @ core.to(torch.float64) @ torch.linalg.pinv(right)
        U, S, Vh = torch.linalg.svd(core)
        U, S, Vh = Q @ U[:, : self.rank], S[: self.rank], Vh[: self.rank] @ P.mT
        test_images = test_images.to(torch.float64)
        answers = (U * S) @ (Vh @ self._tests.to(torch.float64))
        relative, factor = _relative_error(test_images, answers), 1.0
        message = f"One view. Estimated relative error {relative:.2e}."
        if relative >= 1:
            message = (
                f"One view. The estimated relative error {relative:.2e} is no less than that of zero, so singular "
                "values are shrunk. Take `randomized_svd`, which reads A again, or a higher rank."
            )
            factor = _shrinking(test_images, answers, S)
            relative = min(_relative_error(test_images, factor * answers), 1.0)
        return LowRank(
            U=U.to(self.dtype),
            S=restored(factor * S if factor < 1 else S, exponent, self.dtype, "Singular values"),
            Vh=Vh.to(self.dtype),
            relative_error=relative,
            num_passes=1,
            num_matvecs=self.num_matvecs,
            converged=factor == 1.0,
            message=message,
        )

    def _scaled_exponent(self) -> int:
        """The exponent by which the sketches are safe to work with."""
        peaks = [float(part.abs().max()) for part in (self._range, self._corange, self._core, self._test_images)]
        if not all(map(math.isfinite, peaks)):
            raise ValueError(
                f"Sketches of `A` must be in the range of {self.dtype}. Got an overflow in one of them; take `dtype` "
                "torch.float64, or pass A divided by a power of two."
            )
        return exponent_for(peaks[0], self.dtype)

    def _zeros(self, *size: int) -> Tensor:
        return torch.zeros(size, dtype=self.dtype, device=self.device)


def one_view_svd(A: Any, rank: int, *, generator: torch.Generator | None = None) -> LowRank:
    """The leading singular triplets of A from one look at it.

    Args:
        A: `(m, n)`, anything `rangeformer.as_operator` reads.
        rank: Triplets wanted, at most min(m, n).
        generator: Source of all randomness; a fixed one if None.

    Returns:
        As `OneViewSVD.svd`; two to three times the error of two passes is to be expected, and no answer at all where
        singular values hardly decay: see `converged`.

    Raises:
        TypeError: Wrong type of an argument.
        ValueError: Wrong value of an argument.
    """
    operator = ScaledOperator(one_matrix(A))
    check_rank(operator, rank)
    shape = (operator.num_rows, operator.num_columns)
    view = OneViewSVD(shape, rank, dtype=operator.dtype, device=operator.device, generator=generator)
    with torch.no_grad():
        view.update(operator)
        found = view.svd()
    return replace(found, S=restored(found.S, operator.exponent, operator.dtype, "Singular values"))


def _relative_error(test_images: Float[Tensor, "m t"], answers: Float[Tensor, "m t"]) -> float:
    """Of answers to the test vectors, zero where there is nothing to miss."""
    total = test_images.square().sum()
    return float(((test_images - answers).square().sum() / total).sqrt()) if bool(total > 0) else 0.0


def _shrinking(test_images: Float[Tensor, "m t"], answers: Float[Tensor, "m t"], S: Float[Tensor, " r"]) -> float:
    """A factor in [0, 1) by which an approximation B of A is most likely no worse than zero.

    |A - f B|^2 <= |A|^2 for f up to 2 <A, B> / |B|^2, and is least at half of that. |B| is known; <A, B> is the mean of
    (A w)^T B w, of which what is most likely a lower bound is taken.

    Args:
        test_images: A w.
        answers: B w.
        S: Singular values of B.
    """
    common = (test_images * answers).sum(0)
    least = common.mean() - _NUM_DEVIATIONS * common.std() / len(common) ** 0.5
    factor = float((least / S.square().sum()).clamp(0, 1)) if bool(S[0] > 0) else 0.0
    return factor if factor < 1 and _relative_error(test_images, factor * answers) < 1 else 0.0
