"""The nine tasks: one matrix in (operands side by side), one matrix out (results below each other).

    task             input            output
    transposition    M, m x n         M^T
    addition         [A | B], m x 2n  A + B
    matrix_vector    [M | v]          M^T v, n x 1
    matrix_product   [A | B], m x 2n  A^T B, n x n
    eigenvalues      symmetric, n x n descending, n x 1
    eigenvectors     symmetric, n x n row 1: eigenvalues, ascending as LAPACK leaves them; then the eigenvectors in
    columns inversion        n x n            M^-1
    singular_values  m x n            descending, k x 1, k = min(m, n)
    svd              m x n            (1 + m + n) x k: singular values, then U, then V

Products take the transpose of the first operand, so that an entry is a product of two columns. Signs of eigenvectors
and singular vectors are LAPACK's, a coin flip for every vector, unless they are fixed, which makes the task easier.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from rangeformer.baselines.lawt.symbols import TASK_NAMES
from rangeformer.shapes import Float, Tensor

Shape = tuple[int, int]


@dataclass(frozen=True)
class Matter:
    """What a task asks.

    Attributes:
        input_shape: Of the input, from m and n.
        output_shape: Of the output.
        answer: The exact output of an input, batched, in float64.
        square: Whether m = n.
        symmetric: Whether the input is symmetric, of a chosen distribution of the eigenvalues.
    """

    input_shape: Callable[[int, int], Shape]
    output_shape: Callable[[int, int], Shape]
    answer: Callable[[Tensor], Tensor]
    square: bool = False
    symmetric: bool = False


def answer(task: str, matrices: Float[Tensor, "b p q"], *, fixed_signs: bool = False) -> Float[Tensor, "b r s"]:
    """The exact answers of a task.

    Args:
        task: One of the nine.
        matrices: Inputs in the task's form, float64.
        fixed_signs: Make the largest component of every eigenvector, and of every left singular vector, positive. This
            is not what the paper did.

    Raises:
        ValueError: If the task is unknown.

    Example:
        >>> import torch
        >>> from rangeformer.baselines.lawt import answer
        >>> answer("addition", torch.tensor([[[1.0, 2.0, 10.0, 20.0]]]))
        tensor([[[11., 22.]]])
    """
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {list(TASKS)}. Got {task!r}.")
    found = TASKS[task].answer(matrices)
    if fixed_signs and task == "eigenvectors":
        vectors = found[:, 1:]
        found = torch.cat([found[:, :1], vectors * _signs(vectors)], 1)
    if fixed_signs and task == "svd":
        m = matrices.shape[-2]
        signs = _signs(found[:, 1 : 1 + m])
        found = torch.cat([found[:, :1], found[:, 1:] * signs], 1)
    return found


def _signs(vectors: Float[Tensor, "b m k"]) -> Float[Tensor, "b 1 k"]:
    """Of the largest component of each column."""
    return vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()


def _add(matrices: Tensor) -> Tensor:
    A, B = matrices.chunk(2, -1)
    return A + B


def _multiply(matrices: Tensor) -> Tensor:
    A, B = matrices.chunk(2, -1)
    return A.mT @ B


def _apply(matrices: Tensor) -> Tensor:
    return matrices[..., :-1].mT @ matrices[..., -1:]


def _eigenvalues(matrices: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(matrices).flip(-1).unsqueeze(-1)


def _eigenvectors(matrices: Tensor) -> Tensor:
    L, Q = torch.linalg.eigh(matrices)
    return torch.cat([L.unsqueeze(-2), Q], -2)


def _invert(matrices: Tensor) -> Tensor:
    inverse, info = torch.linalg.inv_ex(matrices)
    return inverse.masked_fill((info != 0).view(-1, 1, 1), torch.inf)  # drawn anew by those who draw


def _singular_values(matrices: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrices).unsqueeze(-1)


def _svd(matrices: Tensor) -> Tensor:
    U, S, Vh = torch.linalg.svd(matrices, full_matrices=False)
    return torch.cat([S.unsqueeze(-2), U, Vh.mT], -2)


def _same(m: int, n: int) -> Shape:
    return m, n


def _side_by_side(m: int, n: int) -> Shape:
    return m, 2 * n


_TRANSPOSE = Matter(_same, lambda m, n: (n, m), lambda matrices: matrices.mT)
_ADD = Matter(_side_by_side, _same, _add)
_APPLY = Matter(lambda m, n: (m, n + 1), lambda m, n: (n, 1), _apply)
_MULTIPLY = Matter(_side_by_side, lambda m, n: (n, n), _multiply)
_EIGENVALUES = Matter(_same, lambda m, n: (n, 1), _eigenvalues, square=True, symmetric=True)
_EIGENVECTORS = Matter(_same, lambda m, n: (n + 1, n), _eigenvectors, square=True, symmetric=True)
_INVERT = Matter(_same, _same, _invert, square=True)
_SINGULAR_VALUES = Matter(_same, lambda m, n: (min(m, n), 1), _singular_values)
_SVD = Matter(_same, lambda m, n: (1 + m + n, min(m, n)), _svd)

_MATTERS = (_TRANSPOSE, _ADD, _APPLY, _MULTIPLY, _EIGENVALUES, _EIGENVECTORS, _INVERT, _SINGULAR_VALUES, _SVD)
TASKS: dict[str, Matter] = dict(zip(TASK_NAMES, _MATTERS, strict=True))
"""The nine tasks by name."""
