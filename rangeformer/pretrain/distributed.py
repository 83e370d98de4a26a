"""The processes of one run: started by torchrun, or just this one.

Shards are dealt to processes in turn and their gradients summed by one all-reduce of one flat vector, in which every
process also says what the others must know: its loss, its shards that were not finite, its wish to stop. Gradients
are not averaged by DistributedDataParallel because a step has several backward passes, any of which may be dropped.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# the others wait for the first one's validation
_TIMEOUT = timedelta(hours=1)


@dataclass(frozen=True)
class Processes:
    """Where this process stands among all.

    Attributes:
        rank: Its number; 0 validates, writes and speaks.
        size: How many there are.
        device: Where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, writes and speaks."""
        return self.rank == 0

    def own(self, num_shards: int) -> range:
        """The shards of this process."""
        return range(self.rank, num_shards, self.size)

    def sum_(self, values: Tensor) -> Tensor:
        """Add up over the processes, in place; every process gets the same bits."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def from_first_(self, values: Tensor) -> Tensor:
        """Take the first process's values, in place."""
        if self.size > 1:
            dist.broadcast(values, src=0)
        return values

    def from_first(self, value: Any) -> Any:
        """The first process's plain value."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def wait(self) -> None:
        """Until all are here."""
        self.sum_(torch.zeros(1, device=self.device))


def check_shards(num_shards: int, size: int) -> None:
    """Each process must have work.

    Raises:
        ValueError: If there are more processes than shards.
    """
    if num_shards < size:
        raise ValueError(
            f"`num_shards` must be at least the number of processes, {size}, so that each has work. Got {num_shards}."
        )


@contextmanager
def started(device: str, num_shards: int) -> Iterator[Processes]:
    """The processes that torchrun started, connected by gloo on the CPU and by nccl on CUDA; alone without torchrun.

    Args:
        device: "cpu" or "cuda", as in `RunConfig`.
        num_shards: What there will be to share in each step.

    Raises:
        ValueError: If the device is not there, or there are more processes than shards.
    """
    wanted = torch.device(device)
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise ValueError('`device` is "cuda", but torch sees no CUDA device. Use "cpu".')
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield Processes(device=wanted)
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    check_shards(num_shards, size)
    if wanted.type == "cuda":
        wanted = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
        torch.cuda.set_device(wanted)
    dist.init_process_group("nccl" if wanted.type == "cuda" else "gloo", rank=rank, world_size=size, timeout=_TIMEOUT)
    try:
        yield Processes(rank, size, wanted)
    finally:
        dist.destroy_process_group()
