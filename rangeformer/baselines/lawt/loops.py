"""Passes through an encoder whose layers share their weights: plain, with a copy gate, or until a learned halt.

References:
    Dehghani et al., Universal transformers, ICLR 2019, arXiv:1807.03819 (shared layers, adaptive halting).
    Csordas, Irie and Schmidhuber, The neural data router, ICLR 2022, arXiv:2110.07732 (copy gate).
    Banino, Balaguer and Blundell, PonderNet, 2021, arXiv:2107.05407 (halting by a geometric distribution,
    differentiable).
"""

from collections.abc import Callable

import torch
from torch import nn

from rangeformer.shapes import Bool, Float, Tensor

_GATE_BIAS = -3.0  # of the copy gate, as in Csordas et al.: a pass changes little at first
_HALTED = 0.01  # share of a token that is left when it halts for good


class Loops(nn.Module):
    """Repeats a pass over a state.

    A halting token splits into shares: with probability p_l = sigmoid(w^T x_l + b) what is left of it stops at pass l;
    its answer is sum_l share_l x_l. The expected number of passes is returned, to be charged for. Once less than 1 % of
    every token is left, the passes end.
    """

    def __init__(self, kind: str, num_loops: int, width: int):
        super().__init__()
        self.kind, self.num_loops = kind, num_loops
        if kind == "gated":
            self.gate = nn.Linear(width, width)
            nn.init.constant_(self.gate.bias, _GATE_BIAS)
        elif kind == "halting":
            self.halt = nn.Linear(width, 1)

    def forward(
        self,
        x: Float[Tensor, "b s width"],
        one_pass: Callable[[Tensor], Tensor],
        visible: Bool[Tensor, "b s"],
    ) -> tuple[Float[Tensor, "b s width"], Float[Tensor, ""]]:
        """The state after the passes, and the mean number of passes of the visible tokens."""
        if self.kind == "halting":
            return self._until_halted(x, one_pass, visible)
        for _ in range(self.num_loops):
            proposed = one_pass(x)
            if self.kind == "gated":
                gate = self.gate(proposed).sigmoid()
                proposed = gate * proposed + (1 - gate) * x
            x = proposed
        return x, x.new_tensor(float(self.num_loops))

    def _until_halted(self, x: Tensor, one_pass: Callable[[Tensor], Tensor], visible: Tensor) -> tuple[Tensor, Tensor]:
        left = visible.to(x.dtype).unsqueeze(-1)
        result, passes = torch.zeros_like(x), torch.zeros_like(left)
        for index in range(1, self.num_loops + 1):
            x = one_pass(x)
            share = left * self.halt(x).sigmoid()
            is_last = (left - share < _HALTED) if index < self.num_loops else torch.ones_like(left, dtype=torch.bool)
            share = torch.where(is_last, left, share)
            result, passes, left = result + share * x, passes + share * index, left - share
            if not left.any():
                break
        return result, passes.sum() / visible.sum()
