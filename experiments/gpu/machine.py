"""The device under a measurement.

Its name, its driver, its memory, and products in full float32 while it is measured.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from experiments.common import environment


def describe(device: torch.device) -> dict:
    """Versions, machine and driver, for the JSON of a part."""
    found = environment.describe(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["gpu_memory_gib"] = round(properties.total_memory / 2**30, 1)
        found["num_multiprocessors"] = properties.multi_processor_count
        found["driver"] = _driver()
        found["cuda"] = torch.version.cuda
    return found


def folder_name(device: torch.device) -> str:
    """The device as a folder: "nvidia-h100-80gb-hbm3", or "cpu"."""
    if device.type != "cuda":
        return device.type
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 inside, whatever was set before outside."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        environment.prepare()
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def _driver() -> str:
    command = shutil.which("nvidia-smi")
    if command is None:
        return "unknown"
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    return lines[0].strip() if lines else "unknown"
