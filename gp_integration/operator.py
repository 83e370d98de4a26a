"""A LinearOperator whose solves and log-determinants are RangeFormer's, outside of any block."""

from pathlib import Path
from typing import Any

import torch
from linear_operator import to_linear_operator
from linear_operator.operators import LinearOperator
from torch import Tensor

from gp_integration import operator_methods, state
from gp_integration.options import BlockOptions
from gp_integration.report import Recorder
from gp_integration.request import SolveRequest
from gp_integration.state import SettingsBlock
from rangeformer.deprecation import renamed


class RangeFormerLinearOperator(LinearOperator):
    """A positive (semi-)definite operator whose solves, quadratic forms and log-determinants go to `rangeformer`.

    Everything else is delegated to the wrapped operator. It needs no `use_rangeformer` block and takes
    matrices of every size and structure; inside a block, its calls appear in the block's report.
    Gradients flow to whatever the wrapped operator is built from.

    Args:
        base: `(*batch, n, n)` LinearOperator or tensor, symmetric positive definite.
        rtol: Relative residual of solves, worst column. (Default: 1e-6 in float64, 1e-5 in float32)
        num_columns: Columns the model reads; None lets it choose. (Default: None)
        num_neighbors: Neighbours per row; None lets it choose. (Default: None)
        num_probes: Probe vectors of the log-determinant; None lets it choose. (Default: None)
        checkpoint: Path of trained weights, "untrained", or None for the shipped ones. (Default: None)
        seed: Seed of every call; None draws from torch's global generator. (Default: 0)
        max_iterations: Iterations after which a solve has failed. (Default: 1000)
        fallback: "cholesky" or "raise", for calls that fail. (Default: "cholesky")
        tolerance: The former name of `rtol`; deprecated.

    Raises:
        ValueError: If `base` is not square, or an option is out of range.

    Example:
        >>> import torch
        >>> from linear_operator.operators import DenseLinearOperator
        >>> A = RangeFormerLinearOperator(DenseLinearOperator(2 * torch.eye(3)))
        >>> A.solve(torch.ones(3)).tolist()
        [0.5, 0.5, 0.5]
    """

    def __init__(
        self,
        base: LinearOperator | Tensor,  # shape: (*batch, n, n)
        *,
        rtol: float | None = None,
        num_columns: int | None = None,
        num_neighbors: int | None = None,
        num_probes: int | None = None,
        checkpoint: str | Path | None = None,
        seed: int | None = 0,
        max_iterations: int = 1000,
        fallback: str = "cholesky",
        tolerance: float | None = None,
    ):
        if tolerance is not None:
            rtol = renamed("tolerance", "rtol", tolerance)
        base = to_linear_operator(base)
        if base.shape[-1] != base.shape[-2]:
            raise ValueError(f"`base` must be square, (*batch, n, n). Got {tuple(base.shape)}.")
        keywords: dict[str, Any] = {
            "rtol": rtol,
            "num_columns": num_columns,
            "num_neighbors": num_neighbors,
            "num_probes": num_probes,
            "checkpoint": checkpoint,
            "seed": seed,
            "max_iterations": max_iterations,
            "fallback": fallback,
        }
        super().__init__(base, **keywords)
        self.base = base
        if rtol is None:
            keywords["rtol"] = 1e-6 if base.dtype == torch.float64 else 1e-5
        self._options = BlockOptions(eval_rtol=keywords["rtol"], **keywords)

    def solve(
        self,
        right_tensor: Tensor,  # shape: (*any, n, k) or (n)
        left_tensor: Tensor | None = None,  # shape: (*any, o, n)
    ) -> Tensor:  # shape: (*broadcast, n, k), (n), (*broadcast, o, k) or (*broadcast, o)
        """A^-1 right, or left A^-1 right; see `LinearOperator.solve`."""
        return operator_methods.solve_with(
            self._request("solve"), self.base.evaluate_kernel(), right_tensor, left_tensor
        )

    def inv_quad(
        self,
        inv_quad_rhs: Tensor,  # shape: (*batch, n, k) or (n)
        reduce_inv_quad: bool = True,
    ) -> Tensor:  # shape: (*batch) or (*batch, k)
        """rhs^T A^-1 rhs; see `LinearOperator.inv_quad`."""
        return operator_methods.inv_quad_with(
            self._request("inv_quad"), self.base.evaluate_kernel(), inv_quad_rhs, reduce_inv_quad
        )

    def inv_quad_logdet(
        self,
        inv_quad_rhs: Tensor | None = None,  # shape: (*batch, n, k) or (n)
        logdet: bool | None = False,
        reduce_inv_quad: bool | None = True,
    ) -> tuple[Tensor, Tensor]:  # shapes: (*batch) or (*batch, k), (*batch)
        """Both at once; see `LinearOperator.inv_quad_logdet`. `logdet()` comes here as well."""
        base = self.base.evaluate_kernel()
        request = self._request("inv_quad_logdet" if logdet else "inv_quad")
        return operator_methods.inv_quad_logdet_with(request, base, inv_quad_rhs, logdet, reduce_inv_quad)

    def evaluate_kernel(self) -> "RangeFormerLinearOperator":
        """The same with the wrapped operator evaluated."""
        return self._with(self.base.evaluate_kernel())

    def to_dense(self) -> Tensor:  # shape: (*batch, n, n)
        """The matrix as a tensor."""
        dense = self.base.to_dense()
        assert torch.is_tensor(dense)
        return dense

    def _request(self, purpose: str) -> SolveRequest:
        block = state.current()
        recorder = Recorder() if block is None else block.recorder
        return SolveRequest(SettingsBlock(self._options, recorder, None), purpose, self._options.rtol)

    def _with(self, base: LinearOperator) -> "RangeFormerLinearOperator":
        return self.__class__(base, **self._kwargs)

    def _size(self) -> torch.Size:
        return self.base.shape

    def _matmul(self, rhs: Tensor) -> Tensor:
        return self.base._matmul(rhs)

    def _t_matmul(self, rhs: Tensor) -> LinearOperator | Tensor:
        return self.base._t_matmul(rhs)

    def _transpose_nonbatch(self) -> "RangeFormerLinearOperator":
        # Not self, although A is symmetric: its gradients would come out transposed.
        return self._with(self.base._transpose_nonbatch())

    def _bilinear_derivative(self, left_vecs: Tensor, right_vecs: Tensor) -> tuple[Tensor | None, ...]:
        return self.base._bilinear_derivative(left_vecs, right_vecs)

    def _diagonal(self) -> Tensor:
        return self.base._diagonal()

    def _get_indices(self, row_index, col_index, *batch_indices) -> Tensor:
        return self.base._get_indices(row_index, col_index, *batch_indices)

    def _getitem(self, row_index, col_index, *batch_indices) -> LinearOperator:
        part = self.base._getitem(row_index, col_index, *batch_indices)
        principal = isinstance(row_index, slice) and row_index == col_index
        return self._with(part) if principal else part

    def _expand_batch(self, batch_shape) -> "RangeFormerLinearOperator":
        return self._with(self.base._expand_batch(batch_shape))

    def _unsqueeze_batch(self, dim: int) -> "RangeFormerLinearOperator":
        return self._with(self.base._unsqueeze_batch(dim))

    def _permute_batch(self, *dims: int) -> "RangeFormerLinearOperator":
        return self._with(self.base._permute_batch(*dims))

    def _sum_batch(self, dim: int) -> "RangeFormerLinearOperator":
        return self._with(self.base._sum_batch(dim))

    def _mul_constant(self, other) -> LinearOperator:
        # A negative multiple is no longer positive definite: the wrapped operator answers.
        return self.base._mul_constant(other)
