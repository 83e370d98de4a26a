"""The pure model: embedding, linear attention, loop, read-out. Nothing is solved inside, so one sees what is learned.

A is read by products alone (and its diagonal where it can be had). With s_i = exp(gate_i) / sqrt(A_ii) the loop works
on C = S A S, whose rows are tokens. A token holds five channels for every right-hand side: the answer x, the residual
r, the direction p, and what one read of A made of it, q = C p. One loop is one head of linear attention over the rows
with these channels as keys and values: its state, the matrix of their inner products, costs O(n) and is all that the
mixing of channels depends on,

    x <- x + alpha p,    r <- r - alpha q,    p <- r + beta p,
    log alpha = a0 + sum_j a_j log |G_j| + MLP(log |G|),        G the state relative to <r, r>,

and likewise beta. No formula for alpha and beta is given: untrained, alpha is the step of least residual and beta
nearly zero (Orthomin(0)), and what training makes of the weights can be read off them (`PureRangeFormer.rule`).
Conjugate gradients would be log alpha = -log <p, q> / <r, r> and log beta = log <r', r'> / <r, r>.

Eigenvalues and the log-determinant are read out, by small networks, from what the same loop sees on a block of
orthonormal
probes: ratios of the moments tr A^k and tr C^k, and the alphas and betas of the probes. Both read-outs are built to be
exact where there is nothing to learn: a multiple of the identity, and for the log-determinant any diagonal matrix.
All of it is invariant to the scale of A and to the order of its rows, and no parameter knows n.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rangeformer.models.looped_model import LoopedModel
from rangeformer.models.pure_step import FEATURE_SCALE, MAX_LOG, STRIDE, Coefficient, Loop
from rangeformer.models.pure_summary import NUM_CONTEXT, NUM_LEFT, Summary, positive_diagonal, summarise
from rangeformer.operators import MatrixOperator
from rangeformer.randomness import PROBES, generator_or_default
from rangeformer.shapes import Float, Tensor

_NUM_ALPHA, _NUM_BETA = 4, 5  # logarithms that the two coefficients are made of
_NUM_ROW_FEATURES = 4
_NUM_INDEX_FEATURES = 5
_GATE_LIMIT = 2.0
_SOLVED = 1e-14  # relative residual, in float64, below which inner products are rounding and a column is frozen
_DIVERGED = 1e3  # a residual this far above the least one so far has diverged


@dataclass(frozen=True)
class PureConfig:
    """Sizes of a pure RangeFormer; none is tied to the matrix."""

    num_loops: int = 16
    """T, default number of reads; the read-outs look at the first T loops, whatever is run."""
    num_probes: int = 64
    """Orthonormal probes; up to this n the moments are exact."""
    hidden: int = 96
    """Width of the read-outs."""
    small: int = 16
    """Width of the row gate and of the coefficients' networks."""

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "PureConfig":
        """Build from plain JSON values."""
        return cls(**fields)


class PureRangeFormer(LoopedModel):
    """Linear solves, eigenvalues and log-determinants of symmetric positive definite matrices, learned.

    The module docstring says what it computes. `solve` takes rhs with any number of columns, each on its own.

    Args:
        config: Sizes.
        generator: Source of the initial weights.

    Example:
        >>> import torch, rangeformer as rf
        >>> from rangeformer.models.pure import PureRangeFormer
        >>> A = rf.as_operator(torch.diag(torch.arange(1.0, 6.0)))
        >>> value, error = PureRangeFormer.untrained().logdet(A)
        >>> round(float(value), 4)  # log 120
        4.7875
    """

    config: PureConfig

    def __init__(self, config: PureConfig | None = None, *, generator: torch.Generator | None = None):
        super().__init__()
        self.config = PureConfig() if config is None else config
        T, hidden, small = self.config.num_loops, self.config.hidden, self.config.small
        num_features = 2 * (2 * T - 1) + 3 * T + NUM_LEFT + NUM_CONTEXT
        self.gate = nn.Sequential(nn.Linear(_NUM_ROW_FEATURES, small), nn.SiLU(), nn.Linear(small, 1))
        self.alpha = Coefficient(_NUM_ALPHA, small)
        self.beta = Coefficient(_NUM_BETA, small)
        self.spectrum_context = nn.Linear(num_features, hidden)
        self.spectrum_index = nn.Linear(_NUM_INDEX_FEATURES, hidden)
        self.spectrum_out = _network(hidden, hidden, hidden, 1)
        self.largest_out = _network(hidden, 1)
        self.logdet_in = nn.Linear(num_features, hidden)
        self.logdet_out = _network(hidden, hidden, hidden, 1)
        self.errors_in = nn.Linear(num_features, hidden)
        self.errors_out = _network(hidden, hidden, 2)
        self._initialise(torch.Generator().manual_seed(0) if generator is None else generator)

    @classmethod
    def untrained(cls, config: PureConfig | None = None) -> "PureRangeFormer":
        """The model at the start of training."""
        # Initialising the layers draws from torch's global generator, which is not ours to move.
        with torch.random.fork_rng(devices=[]):
            return cls(config).requires_grad_(False).eval()

    def rule(self) -> dict[str, dict[str, float]]:
        """The log-linear parts of alpha and beta, weights by what they multiply: the algorithm that was found."""
        names = ("<p,q>/<r,r>", "<q,q>/<r,r>", "<p,p>/<r,r>", "<p,r>/<r,r>", "<r',r'>/<r,r>")

        def weights(part: Coefficient) -> dict[str, float]:
            values = (STRIDE * part.linear.weight.detach()).flatten().tolist()
            return {"constant": STRIDE * part.linear.bias.item(), **dict(zip(names, values, strict=False))}

        return {"alpha": weights(self.alpha), "beta": weights(self.beta)}

    def solve(
        self,
        operator: MatrixOperator,
        rhs: Float[Tensor, "*batch n k"],
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch n k"]:
        """The answer of the last loop, or of the one before the residual diverged."""
        return self.solve_path(operator, rhs, num_loops=num_loops, generator=generator)[-1]

    def solve_path(
        self,
        operator: MatrixOperator,
        rhs: Float[Tensor, "*batch n k"],
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Float[Tensor, "*batch n k"]]:
        """The answers after every loop."""
        scaling = self.scaling(operator, self.probes(operator, generator)).unsqueeze(-1)
        state, values = self.start(scaling * rhs), []
        least = state.r.square().sum(-2)
        answer = state.x
        for _ in range(self._count(num_loops)):
            state = self.step(state, scaling * operator.matmul(scaling * state.p), scaling * rhs)
            norms = state.r.square().sum(-2)
            sound = (norms <= _DIVERGED**2 * least).unsqueeze(-2)
            answer = torch.where(sound, state.x, answer)
            least = torch.minimum(least, norms)
            values.append(scaling * answer)
        return values

    def eigenvalues(
        self,
        operator: MatrixOperator,
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
        """All eigenvalues, ascending, and the error that the model expects of them in the mean.

        Half of the errors are larger.
        """
        seen = self.summary(operator, num_loops=num_loops, generator=generator)
        values, level = self.read_spectrum(seen), seen.level.unsqueeze(-1)
        return values * level, (self.read_log_errors(seen)[0].exp().unsqueeze(-1) * level).expand_as(values)

    def logdet(
        self,
        operator: MatrixOperator,
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Log det A and the error that the model expects of it: half of the errors are larger."""
        seen = self.summary(operator, num_loops=num_loops, generator=generator)
        return self.read_logdet(seen), self.read_log_errors(seen)[1].exp() * operator.num_rows

    def scaling(self, operator: MatrixOperator, probes: Float[Tensor, "*batch n s"]) -> Float[Tensor, "*batch n"]:
        """S: one over the root of the diagonal, times the gate of what one read of A says about the row."""
        diagonal = positive_diagonal(operator, probes)
        inverse_root = diagonal.rsqrt().unsqueeze(-1)
        rows = (inverse_root * operator.matmul(inverse_root * probes)).square().sum(-1).clamp_min(1).log()
        level = diagonal.log()
        level = (level - level.mean(-1, keepdim=True)).clamp(-MAX_LOG, MAX_LOG)
        spread = level.square().mean(-1, keepdim=True).sqrt().expand_as(level)
        tokens = torch.stack(
            [FEATURE_SCALE * level, rows, rows - rows.mean(-1, keepdim=True), FEATURE_SCALE * spread], dim=-1
        )
        gate = self.gate(tokens.to(self.alpha.linear.weight.dtype)).squeeze(-1)
        return inverse_root.squeeze(-1) * (_GATE_LIMIT * torch.tanh(gate / _GATE_LIMIT)).exp().to(diagonal.dtype)

    @staticmethod
    def start(rhs: Float[Tensor, "*batch n k"]) -> Loop:
        """Before the first loop."""
        nothing = torch.full_like(rhs[..., 0, :], torch.nan)
        return Loop(torch.zeros_like(rhs), rhs, rhs, nothing, nothing)

    def step(self, state: Loop, q: Float[Tensor, "*batch n k"], rhs: Float[Tensor, "*batch n k"]) -> Loop:
        """One loop, given q = C p: one head of linear attention for each column.

        The attention state enters the coefficients as a constant: gradients flow through what the coefficients do.
        """
        x, r, p = state.x, state.r, state.p
        own = r.square().sum(-2)
        least = (max(_SOLVED, torch.finfo(r.dtype).eps / 100) ** 2) * rhs.square().sum(-2)
        live = (own > least) & ((p * q).sum(-2) > 0) & q.isfinite().all(-2)
        safe = torch.where(live, own, torch.ones_like(own)).detach()

        def log_ratio(inner: Tensor) -> Tensor:
            tiny = torch.finfo(inner.dtype).tiny
            value = torch.where(live, inner.detach().abs() / safe, torch.ones_like(inner))
            return value.clamp(tiny, 1 / tiny).log()

        seen = torch.stack([log_ratio((u * v).sum(-2)) for u, v in ((p, q), (q, q), (p, p), (p, r))], dim=-1)
        log_alpha = self.alpha(seen)
        alpha = torch.where(live, log_alpha.exp(), torch.zeros_like(own)).unsqueeze(-2)
        q = torch.where(live.unsqueeze(-2), q, torch.zeros_like(q))
        x, r = x + alpha * p, r - alpha * q
        log_beta = self.beta(torch.cat([seen, log_ratio(r.square().sum(-2)).unsqueeze(-1)], dim=-1))
        beta = torch.where(live, log_beta.exp(), torch.zeros_like(own)).unsqueeze(-2)
        frozen = torch.full_like(own, torch.nan)
        return Loop(x, r, r + beta * p, torch.where(live, log_alpha, frozen), torch.where(live, log_beta, frozen))

    def summary(
        self, operator: MatrixOperator, *, num_loops: int | None = None, generator: torch.Generator | None = None
    ) -> Summary:
        """Run the loop on probes and collect what the read-outs need; see `summarise`."""
        return summarise(self, operator, self._count(num_loops), generator)

    def read_spectrum(self, seen: Summary) -> Float[Tensor, "*batch n"]:
        """Eigenvalues over their mean, ascending: the largest by extrapolation, the others as shares of what it leaves.

        Their sum is right by construction, and all are one if A is a multiple of I.
        """
        weight = self.spectrum_index.weight
        index = torch.arange(1, seen.n, dtype=weight.dtype, device=weight.device)
        q = (index - 0.5) / seen.n
        index = torch.stack([q, q.log(), (1 - q).log(), index.log(), (seen.n - index).log()], dim=-1)
        context = self.spectrum_context(seen.features.to(weight.dtype))
        further = torch.nn.functional.softplus(self.largest_out(context)).squeeze(-1).to(seen.level.dtype)
        largest = (seen.largest[..., 0] + further * seen.largest[..., 1]).exp().clamp(1, seen.n).unsqueeze(-1)
        hidden = context.unsqueeze(-2) + self.spectrum_index(FEATURE_SCALE * index)
        logs = 3 * self.spectrum_out(hidden).squeeze(-1).to(seen.spread.dtype) * seen.spread.sqrt().unsqueeze(-1)
        others = torch.softmax(logs, dim=-1) * (seen.n - largest)
        return torch.cat([others, largest], dim=-1).sort(-1).values

    def read_logdet(self, seen: Summary) -> Float[Tensor, "*batch"]:
        """Log det A = sum log A_ii + log det C, whose second-order value the network multiplies."""
        weight = self.logdet_in.weight
        factor = self.logdet_out(self.logdet_in(seen.features.to(weight.dtype))).squeeze(-1)
        return seen.log_diagonal - seen.n / 2 * seen.scaled_spread * (3 * factor).exp().to(seen.level.dtype)

    def read_log_errors(self, seen: Summary) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Logs of the errors to expect: of the eigenvalues over their mean, and of log det A / n."""
        weight = self.errors_in.weight
        logs = self.errors_out(self.errors_in(seen.features.to(weight.dtype))).to(seen.level.dtype)
        return logs[..., 0], logs[..., 1]

    def _count(self, num_loops: int | None) -> int:
        if num_loops is None:
            return self.config.num_loops
        if num_loops < 1:
            raise ValueError(f"`num_loops` must be at least 1. Got {num_loops}.")
        return num_loops

    def probes(self, operator: MatrixOperator, generator: torch.Generator | None) -> Float[Tensor, "*batch n s"]:
        """Orthonormal columns times sqrt(n / s), so that E[Z Z^T] = I."""
        generator = generator_or_default(generator, PROBES)
        n, s = operator.num_rows, min(operator.num_rows, self.config.num_probes)
        shape = (*operator.batch_shape, n, s)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
        return ((n / s) ** 0.5 * torch.linalg.qr(drawn).Q).to(operator.device, operator.dtype)

    def _initialise(self, generator: torch.Generator) -> None:
        """Weights from the generator; the networks' last layers are zero, alpha is the step of least residual."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    bound = module.in_features**-0.5
                    module.weight.uniform_(-bound, bound, generator=generator)
                    module.bias.zero_()
            last = [
                self.gate,
                self.alpha.network,
                self.beta.network,
                self.spectrum_out,
                self.logdet_out,
                self.errors_out,
            ]
            for layer in [*(network[-1] for network in last), self.alpha.linear, self.beta.linear]:
                layer.weight.zero_()
            # log alpha = log <p, q> - log <q, q>, log beta = -1
            self.alpha.linear.weight[0, 0], self.alpha.linear.weight[0, 1] = 1 / STRIDE, -1 / STRIDE
            self.beta.linear.bias.fill_(-1 / STRIDE)


def _network(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for wide, narrow in zip(widths, widths[1:], strict=False):
        layers += [nn.SiLU(), nn.Linear(wide, narrow)]
    return nn.Sequential(*layers)
