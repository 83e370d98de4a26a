"""What every part is told and hands back."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Request:
    """What a part is told.

    Attributes:
        device: Where to compute.
        folder: Of the results, for parts that write more than their JSON file.
        deadline: Of `time.monotonic`; a part looks at it between measurements.
        smoke: Tiny sizes.
        data_dir: A folder of tables, if there is one.
        matrix_dir: A folder of matrices, if there is one.
        seed: Of everything random.
    """

    device: torch.device
    folder: Path
    deadline: float
    smoke: bool = False
    data_dir: Path | None = None
    matrix_dir: Path | None = None
    seed: int = 0

    @property
    def seconds_left(self) -> float:
        """Until the deadline; negative beyond it."""
        return self.deadline - time.monotonic()
