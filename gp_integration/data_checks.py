"""Data that no solver can help with is an error that names them."""

import torch
from torch import Tensor


def check_finite(what: str, values: Tensor) -> None:
    """Targets and means must be numbers.

    Args:
        what: "targets" or "prior mean", for the message.
        values: `(*any, n)`.

    Raises:
        ValueError: If some are not.
    """
    finite = torch.isfinite(values.detach())
    if bool(finite.all()):
        return
    count, example = int((~finite).sum()), float(values.detach()[~finite][0])
    raise ValueError(
        f"The {what} must be finite. Got {count} entries that are not, the first {example}. Remove their rows, or use "
        "gpytorch.settings.observation_nan_policy('mask') for missing targets."
    )
