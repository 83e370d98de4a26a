"""What repeated products with a block of probes say of a spectrum: ratios of moments, scale-free and in the log domain.

With Z the probes, E[Z Z^T] = I, tr M^(2t) = |M^t Z|^2 and tr M^(2t+1) = <M^t Z, M^(t+1) Z> up to the probes' scatter
(exactly, where Z is an orthonormal basis): t reads give 2t moments. Their ratios tr M^(k+1) / tr M^k rise to the
largest eigenvalue.
"""

import math

import torch

from rangeformer.shapes import Float, Tensor


class Moments:
    """Moments tr M^k / n of a symmetric positive definite M, collected while M^t Z is computed.

    Args:
        probes: Z, `(*batch, n, s)`.
    """

    def __init__(self, probes: Float[Tensor, "*batch n s"]):
        self.block = probes
        self._log_scale = torch.zeros_like(probes[..., 0, 0])
        self._logs = [self._mean_log(probes.square().sum((-1, -2)))]

    def update(self, image: Float[Tensor, "*batch n s"]) -> None:
        """Take M @ block, the next power."""
        mixed = (self.block * image).sum((-1, -2)).abs()
        square = image.square().sum((-1, -2))
        self._logs += [
            self._mean_log(mixed) + 2 * self._log_scale,
            self._mean_log(square) + 2 * self._log_scale,
        ]
        size = square.clamp_min(torch.finfo(image.dtype).tiny).sqrt()
        self._log_scale = self._log_scale + size.log()
        self.block = image / size[..., None, None]

    def log_ratios(self, count: int) -> Float[Tensor, "*batch c"]:
        """Log (tr M^(k+1) / tr M^k) - log (tr M / n), k = 1..count; the last one known is repeated."""
        logs = torch.stack(self._logs, dim=-1)
        ratios = logs[..., 2:] - logs[..., 1:-1] - logs[..., 1:2] + logs[..., :1]
        missing = max(0, count - ratios.shape[-1])
        return torch.cat([ratios, ratios[..., -1:].expand(*ratios.shape[:-1], missing)], dim=-1)[..., :count]

    def largest(self) -> Float[Tensor, "*batch 2"]:
        """Log of the largest eigenvalue over the mean.

        The last ratio, which is below it, and how far it rose in the last half.
        """
        ratios = self.log_ratios(len(self._logs) - 2)
        last, half = ratios[..., -1], ratios[..., ratios.shape[-1] // 2]
        return torch.stack([last, (last - half).clamp_min(0)], dim=-1)

    def without(self, log_largest: Float[Tensor, "*batch"], count: int) -> Float[Tensor, "*batch c"]:
        """Logs of (mean-one) moments 1..count that are left when one eigenvalue is taken out, over n."""
        logs = torch.stack(self._logs[1 : count + 1], dim=-1)
        powers = torch.arange(1, logs.shape[-1] + 1, dtype=logs.dtype, device=logs.device)
        scaled = logs - self._logs[0].unsqueeze(-1) - powers * self.level().log().unsqueeze(-1)
        own = powers * log_largest.unsqueeze(-1) - math.log(self.block.shape[-2])
        # what rounding leaves of a sum that one eigenvalue dominates
        floor = torch.finfo(logs.dtype).eps * scaled.exp()
        left = (scaled.exp() - own.exp()).clamp_min(floor).log()
        return torch.cat([left, left[..., -1:].expand(*left.shape[:-1], count - left.shape[-1])], dim=-1)

    def spread(self) -> Float[Tensor, "*batch"]:
        """Log (n tr M^2 / (tr M)^2), zero for a multiple of the identity and at most log n."""
        return (self._logs[2] - 2 * self._logs[1] + self._logs[0]).clamp_min(0)

    def level(self) -> Float[Tensor, "*batch"]:
        """Tr M / n."""
        return (self._logs[1] - self._logs[0]).exp()

    def _mean_log(self, total: Tensor) -> Tensor:
        return total.clamp_min(torch.finfo(total.dtype).tiny).log() - math.log(self.block.shape[-2])
