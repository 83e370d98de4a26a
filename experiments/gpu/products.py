"""The kernel product, which is what iterations pay for: time, and its share of the device's ceilings."""

import torch

import rangeformer as rf
from experiments.gpu.ceilings import ceilings
from experiments.gpu.chunked import ChunkedKernel
from experiments.gpu.clock import timed
from experiments.gpu.machine import free_bytes
from experiments.gpu.part import Request

COLUMNS = (1, 4, 16, 64)


def measure(request: Request) -> dict:
    """K V with K stored and K recomputed, for several widths of V, float32."""
    device, dtype = request.device, torch.float32
    peak = ceilings(device, dtype, smoke=request.smoke)
    sizes = (300,) if request.smoke else (20_000, 50_000, 100_000) if device.type == "cuda" else (2000, 8000)
    rows, complete = [], True
    for n in sizes:
        generator = torch.Generator().manual_seed(request.seed)
        kernel = ChunkedKernel(torch.randn(n, 9, generator=generator).to(device) / 3, torch.ones((), device=device))
        fits = 4 * n * n < 0.8 * free_bytes(device)
        K = rf.as_operator(kernel.computed()) if fits else None
        for num_columns in COLUMNS:
            if request.seconds_left < 0:
                complete = False
                break
            V = torch.randn(n, num_columns, generator=generator).to(device)
            recomputed = timed(lambda V=V, kernel=kernel: kernel._matmul(V), device, num_runs=3)
            row = {"n": n, "num_columns": num_columns, "recomputed": recomputed.as_dict(), "stored": None}
            if K is not None:
                stored = timed(lambda K=K, V=V: K.matmul(V), device)
                moved, operations = 4 * (n * n + 2 * n * num_columns), 2 * n * n * num_columns
                row |= {
                    "stored": stored.as_dict(),
                    "bytes": moved,
                    "operations": operations,
                    "share_of_copy": moved / stored.median / peak["copy_bytes"],
                    "share_of_matmul": operations / stored.median / peak["matmul_operations"],
                }
            rows.append(row)
        del K
    return {"ceilings": peak, "rows": rows, "complete": complete}
