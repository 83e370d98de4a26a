"""The two numbers first: how many bytes a second the device copies.

How many operations a second its matrix products do.
"""

import torch
from torch import Tensor

from experiments.gpu.clock import timed
from experiments.gpu.part import Request

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def measure(request: Request) -> dict:
    """Copy bandwidth (read and write both counted), square matrix products, and thin ones as in a block iteration."""
    rows = []
    for name, dtype in DTYPES.items():
        rows.append({"dtype": name, **ceilings(request.device, dtype, smoke=request.smoke)})
    return {"rows": rows}


def ceilings(device: torch.device, dtype: torch.dtype, *, smoke: bool = False) -> dict:
    """Both ceilings of one precision: `copy_bytes` and `matmul_operations`, a second."""
    on_gpu = device.type == "cuda" and not smoke
    size, count = (8192, 1 << 28) if on_gpu else (512, 1 << 22) if smoke else (1536, 1 << 25)
    source = torch.zeros(count, dtype=dtype, device=device)
    target = torch.empty_like(source)
    copy = timed(lambda: target.copy_(source), device, num_warm_up=2)
    A, B = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    C = torch.empty_like(A)
    product = timed(lambda: torch.matmul(A, B, out=C), device, num_warm_up=2)
    return {
        "copy_bytes": 2 * _bytes(source) / copy.median,
        "copy": copy.as_dict(),
        "matmul_size": size,
        "matmul_operations": 2 * size**3 / product.median,
        "matmul": product.as_dict(),
    }


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
