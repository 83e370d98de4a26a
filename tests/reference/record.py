"""Write down what every call returns: `python -m tests.reference.record FILE`.

A tensor becomes its shape, the SHA-256 of its bytes, and a few entries for machines whose arithmetic differs.
"""

import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RECORDED = Path(__file__).parent / "recorded.json"
_NUM_ENTRIES = 8


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """As JSON holds it."""
    if isinstance(value, Tensor):
        flat = value.detach().to(torch.float64).flatten()
        some = flat[torch.linspace(0, len(flat) - 1, min(_NUM_ENTRIES, len(flat))).long()]
        return {"shape": list(value.shape), "digest": digest(value), "entries": [repr(x) for x in some.tolist()]}
    return repr(value) if isinstance(value, float) else value


def fingerprint() -> dict[str, str]:
    """What decides whether this machine rounds as the recording one did."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(257, 257, generator=generator, dtype=torch.float64)
    sample = {}
    for dtype in (torch.float32, torch.float64):
        B = A.to(dtype)
        gram = B @ B.mT + 257 * torch.eye(257, dtype=dtype)
        parts = [
            gram,
            torch.linalg.cholesky(gram),
            torch.linalg.eigh(gram)[1],
            torch.linalg.qr(B)[0],
            gram.exp().log1p(),
        ]
        sample[str(dtype)] = "-".join(digest(part) for part in parts)
    return {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(), **sample}


def outcome(name: str) -> dict[str, Any]:
    """One call on one thread, its warnings counted among its results."""
    from tests.reference.calls import CALLS

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = CALLS[name]()
    kinds = sorted({w.category.__name__ for w in caught if w.category.__module__.startswith("rangeformer")})
    return {key: plain(value) for key, value in found.items()} | {"warnings": kinds}


def main(path: Path) -> None:
    from tests.reference.calls import CALLS

    torch.set_num_threads(1)
    record = {"fingerprint": fingerprint(), "calls": {name: outcome(name) for name in CALLS}}
    path.write_text(json.dumps(record, indent=None, separators=(",", ":")).replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RECORDED)
