"""The paper's model with the scaling of its operation applied outside: A = c A', rhs = beta rhs'."""

import torch
from torch import nn

from rangeformer.baselines.paper import PaperRangeFormer
from rangeformer.shapes import Float, Tensor

TRAINING_DIAGONAL = 2.0  # mean diagonal of the training matrices: one, times a factor uniform in [1, 3]


class ScaledPaperRangeFormer(nn.Module):
    """Brings the matrix to the scale of the training matrices and the answer back.

    The network itself knows one scale only; a user would know better, so comparisons report the better of the two.

    Args:
        model: A trained model.

    Example:
        >>> import torch
        >>> from rangeformer.baselines import PaperConfig, PaperRangeFormer, ScaledPaperRangeFormer
        >>> model = ScaledPaperRangeFormer(PaperRangeFormer(PaperConfig(operation="trace", n_max=20)))
        >>> A = torch.eye(10, dtype=torch.float64)[None]
        >>> bool(torch.isclose(model(1000 * A), 1000 * model(A), rtol=1e-5))
        True
    """

    def __init__(self, model: PaperRangeFormer):
        """Wrap; the parameters stay the model's."""
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(
        self,
        matrix: Float[Tensor, "b n n"],
        rhs: Float[Tensor, "b n"] | None = None,
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As `PaperRangeFormer.forward`; a matrix without a positive mean diagonal keeps its scale."""
        scale = _positive_or_one(matrix.diagonal(dim1=-2, dim2=-1).mean(-1) / TRAINING_DIAGONAL)
        size = torch.ones_like(scale)
        if rhs is not None:
            size = _positive_or_one(rhs.square().mean(-1).sqrt())
            rhs = rhs / size.unsqueeze(-1)
        answer = self.model(matrix / scale[:, None, None], rhs, num_loops=num_loops, generator=generator)
        operation, n = self.config.operation, matrix.shape[-1]
        if operation == "logdet":
            return answer + n * scale.log()
        factor = size / scale if operation in ("solve", "inverse") else scale
        return answer * factor.reshape(-1, *[1] * (answer.dim() - 1))


def _positive_or_one(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.ones_like(x))
