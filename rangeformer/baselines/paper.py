"""The paper's RangeFormer: a transformer over the rows of a matrix, one block looped, one model per operation.

Re-implemented from a description of the public code of Potapczynski, Ali and Wilson, "Understanding and Relaxing the
Limitations of Transformers for Linear Algebra" (ICLR 2026):

    rows zero-padded to n_max -> linear map -> [pre-norm attention + MLP] x R, shared weights, input re-injected
    -> LayerNorm -> linear D -> 1 per token: n numbers; a scalar is a linear map of the n numbers, padded to n_max.

Where the description is silent we take the plain choice, and of several the one that cannot hurt the model:

1. the right-hand side of a solve is channel D + 1 of its row, and the heads together have D channels all the same;
2. the MLP is a GELU between two linear maps; LayerNorms have weights and biases; biases everywhere else too;
3. eigenvalues are returned in ascending order, which no L1 error against ascending eigenvalues is hurt by;
4. the inverse is n_max numbers per row, cut to n, and symmetrised, since all our matrices are symmetric;
5. rope turns queries and keys before the feature map of linear attention, so that its weights stay positive;
6. entries as tokens (NumFormer): the right-hand side is one more column of the table; a solve is read off the tokens of
   that column, the inverse off the token of each entry, all else off the mean token of each row.
"""

from typing import overload

import torch
from torch import nn

from rangeformer.baselines.config import SCALARS, PaperConfig
from rangeformer.baselines.tokens import Tokens, position_angles
from rangeformer.models.attention import ATTENTIONS
from rangeformer.shapes import Float, Tensor


class PaperBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: PaperConfig):
        """Sizes from the model's configuration."""
        super().__init__()
        width, inner, hidden = config.width, config.channels, config.mlp_factor * config.channels
        self.num_heads, self.rope = config.num_heads, config.position == "rope"
        self.attention = ATTENTIONS[config.attention]
        self.before_attention = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * inner)
        self.after_attention = nn.Linear(inner, width)
        self.before_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, state: Float[Tensor, "b t width"]) -> Float[Tensor, "b t width"]:
        """Mix the tokens, then the channels."""
        heads = self.queries_keys_values(self.before_attention(state))
        heads = heads.unflatten(-1, (3, self.num_heads, -1)).movedim(-3, 0).transpose(-3, -2)  # (3, b, h, t, D/h)
        queries, keys, values = heads[0], heads[1], heads[2]
        if self.rope:
            queries, keys = _rotate(queries), _rotate(keys)
        mixed = self.attention(queries, keys, values).transpose(-3, -2).flatten(-2)  # (b, t, D)
        state = state + self.after_attention(mixed)
        return state + self.mlp(self.before_mlp(state))


class PaperRangeFormer(nn.Module):
    """The paper's model for one operation on symmetric positive definite matrices; see the module docstring.

    Args:
        config: Sizes and choices.
        generator: Source of the initial weights. Default: seed 0.

    Example:
        >>> import torch
        >>> from rangeformer.baselines import PaperConfig, PaperRangeFormer
        >>> model = PaperRangeFormer(PaperConfig(operation="eigenvalues", n_max=20))
        >>> model(torch.eye(10).expand(3, 10, 10)).shape
        torch.Size([3, 10])
    """

    def __init__(self, config: PaperConfig | None = None, *, generator: torch.Generator | None = None):
        """Build the modules and draw their weights."""
        super().__init__()
        config = PaperConfig() if config is None else config
        self.config = config
        # The layers' own initialisation draws from torch's global generator, which is not ours to move.
        with torch.random.fork_rng(devices=[]):
            self.tokens = Tokens(config)
            self.blocks = nn.ModuleList(PaperBlock(config) for _ in range(1 if config.looped else config.num_loops))
            self.norm = nn.LayerNorm(config.width)
            wide = config.operation == "inverse" and config.embedding != "entries"
            self.read_out = nn.Linear(config.width, config.n_max if wide else 1)
            if config.operation in SCALARS:
                self.pool = nn.Linear(config.n_max, 1)
        self._initialise(torch.Generator().manual_seed(0) if generator is None else generator)

    def forward(
        self,
        matrix: Float[Tensor, "b n n"],
        rhs: Float[Tensor, "b n"] | None = None,
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Answer the model's operation.

        Args:
            matrix: A, `(b, n, n)`, symmetric positive definite.
            rhs: `(b, n)`, for "solve" and for nothing else.
            num_loops: R. Default: the configuration's; a model with distinct blocks has no other.
            generator: Source of Omega in the randomised form. Default: seed 0, so the map is deterministic.

        Returns:
            The solution or the ascending eigenvalues `(b, n)`, a scalar `(b,)`, or the inverse `(b, n, n)`, in the
            dtype and on the device of `matrix`.

        Raises:
            ValueError: If a shape does not fit, n exceeds n_max where this form is tied to it, `rhs` is missing or not
                asked for, `num_loops` is not to be had, or a number is not finite in the precision of the weights.
        """
        num_loops = self._check(matrix, rhs, num_loops)
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        dtype = self.read_out.weight.dtype  # the weights' precision, whatever the matrix is stored in
        tokens = self.tokens(_finite(matrix, dtype, "matrix"), _finite(rhs, dtype, "rhs"), generator)
        state = tokens
        for loop in range(num_loops):
            state = self.blocks[0 if self.config.looped else loop](state)
            if self.config.input_injection:
                state = state + tokens
        return self._answer(self.norm(state), matrix.shape[-1]).to(matrix.dtype)

    def _answer(self, state: Float[Tensor, "b t width"], n: int) -> Tensor:
        operation, entries = self.config.operation, self.config.embedding == "entries"
        if entries:
            table = state.unflatten(1, (n, -1))  # (b, n, n or n + 1, width)
            state = table if operation == "inverse" else table[:, :, -1] if operation == "solve" else table.mean(2)
        numbers = self.config.answer_scale * self.read_out(state)  # (b, n, 1 | n_max), or (b, n, n, 1)
        if operation == "inverse":
            inverse = numbers.squeeze(-1) if entries else numbers[..., :n]
            return (inverse + inverse.mT) / 2
        numbers = numbers.squeeze(-1)
        if operation in SCALARS:
            # zero-padded to n_max, the numbers meet only the first n weights
            return numbers @ self.pool.weight[0, :n] + self.config.answer_scale * self.pool.bias
        return numbers.sort(dim=-1).values if operation == "eigenvalues" else numbers

    def _check(self, matrix: Tensor, rhs: Tensor | None, num_loops: int | None) -> int:
        """Refuse what does not fit; the number of loops."""
        config, n = self.config, matrix.shape[-1]
        if matrix.dim() != 3 or matrix.shape[-2] != n:
            raise ValueError(f"`matrix` must have shape (b, n, n). Got {tuple(matrix.shape)}.")
        if config.tied_to_n_max and n > config.n_max:
            raise ValueError(
                f"`matrix` must have at most n_max = {config.n_max} rows: this form of the model is tied to n_max. "
                f"Got n = {n}; train a model with a larger n_max."
            )
        if (rhs is not None) != (config.operation == "solve"):
            raise ValueError(f"`rhs` belongs to operation 'solve' and to no other. This model's: {config.operation!r}.")
        if rhs is not None and rhs.shape != matrix.shape[:2]:
            raise ValueError(f"`rhs` must have shape {tuple(matrix.shape[:2])}. Got {tuple(rhs.shape)}.")
        if num_loops is None:
            return config.num_loops
        if num_loops < 1 or not (config.looped or num_loops == config.num_loops):
            wanted = "at least 1" if config.looped else f"{config.num_loops}, the number of distinct blocks"
            raise ValueError(f"`num_loops` must be {wanted}. Got {num_loops}.")
        return num_loops

    def _initialise(self, generator: torch.Generator) -> None:
        """Linear maps uniform within +-1 / sqrt(fan-in), biases zero, learned codes of unit norm in expectation."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    bound = module.in_features**-0.5
                    module.weight.uniform_(-bound, bound, generator=generator)
                    module.bias.zero_()
            for name, parameter in self.tokens.named_parameters():
                if name in ("rows", "columns"):
                    parameter.normal_(0, self.config.channels**-0.5, generator=generator)


@overload
def _finite(x: Tensor, dtype: torch.dtype, name: str) -> Tensor: ...
@overload
def _finite(x: None, dtype: torch.dtype, name: str) -> None: ...
def _finite(x: Tensor | None, dtype: torch.dtype, name: str) -> Tensor | None:
    """The numbers in the precision of the weights, where a network would answer anything else with nan."""
    if x is None:
        return None
    cast = x.to(dtype)
    if not torch.isfinite(cast).all():
        raise ValueError(
            f"`{name}` must be finite in the weights' precision, {dtype}. Got {float(x.abs().max()):.1e} at most; "
            "scale the problem, or use ScaledPaperRangeFormer, which does."
        )
    return cast


def _rotate(x: Float[Tensor, "*b n e"]) -> Float[Tensor, "*b n e"]:
    """Rotary code (Su et al. 2021, arXiv:2104.09864): channels (2j, 2j + 1) of token i turned by its angle j."""
    angles = position_angles(torch.arange(x.shape[-2], device=x.device), x.shape[-1]).to(x)
    even, odd = x[..., ::2], x[..., 1::2]
    turned = (even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos())
    return torch.stack(turned, dim=-1).flatten(-2)
