"""What one loop of the pure model changes: the tokens' channels, by two learned coefficients."""

from dataclasses import dataclass

from torch import nn

from rangeformer.shapes import Float, Tensor

STRIDE = 10.0  # what the log-linear weights move while the networks' weights move one
SHRINK = 0.1  # of the networks' share in a log coefficient
FEATURE_SCALE = 0.3  # logarithms of the size of ten become features of the size of one
MAX_LOG = 20.0


class Coefficient(nn.Module):
    """The log of a positive coefficient.

    Linear in the log attention state, plus a small network that starts at zero.
    """

    def __init__(self, num_features: int, hidden: int):
        super().__init__()
        self.linear = nn.Linear(num_features, 1)
        self.network = nn.Sequential(nn.Linear(num_features, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, logs: Float[Tensor, "*b f"]) -> Float[Tensor, "*b"]:
        """Finite for every input."""
        seen = logs.to(self.linear.weight.dtype)
        value = STRIDE * self.linear(seen) + SHRINK * self.network(FEATURE_SCALE * seen)
        return value.squeeze(-1).clamp(-MAX_LOG, MAX_LOG).to(logs.dtype)


@dataclass(frozen=True)
class Loop:
    """The tokens' channels after a loop, all `(*batch, n, k)`, and the coefficients that led there, `(*batch, k)`.

    Attributes:
        x: The answer.
        r: The residual rhs - C x.
        p: The next direction.
        log_alpha: NaN where a column is frozen.
        log_beta: Likewise.
    """

    x: Tensor
    r: Tensor
    p: Tensor
    log_alpha: Tensor
    log_beta: Tensor
