"""Tables of the parts."""

from collections.abc import Callable

from experiments.common.measures import error_text
from experiments.common.reporting import duration

Rows = tuple[list[str], list[list[str]]]


def caption(result: dict, view: str = "") -> str:
    """What was measured, and on what besides the device."""
    name = _name(result)
    title = {
        "ceilings": "Ceilings of the device: copies (read and written bytes) and square matrix products",
        "products": "Kernel product K V in float32, K stored and recomputed by blocks of rows; shares of the two "
        "ceilings",
        "sketches": "Low-rank approximation",
        "throughput": "Pretraining: draw, forward and backward pass at the shipped settings",
        "members": "Looped members in float32 on ten families against exact float64 answers",
    }.get(name, "One training step of an exact GP in float32")
    if name in STEPS:
        title += f", {result['n']:,} rows, K {'stored' if result['is_stored'] else 'recomputed by blocks of rows'}"
    if name == "sketches":
        title += f", {result['n']:,} x {result['n']:,}, singular values 1 / j, rank {result['rank']}, float32"
    driver = f"; driver {result['environment']['driver']}" if "driver" in result["environment"] else ""
    clock = "" if result["clock"] == "CUDA events" else f", {result['clock']}"
    return f"{title}; median of repeated runs{clock}{driver}"


def comparison(result: dict, view: str = "") -> Rows:
    """Header and rows."""
    return TABLES[_name(result)](result)


def _name(result: dict) -> str:
    return result["kind"].removeprefix("gpu-")


def _ceilings(result: dict) -> Rows:
    return ["", "copy, GB/s", "matrix product, TFLOP/s"], [
        [row["dtype"], f"{row['copy_bytes'] / 1e9:.1f}", f"{row['matmul_operations'] / 1e12:.3f}"]
        for row in result["rows"]
    ]


def _products(result: dict) -> Rows:
    def cells(row: dict) -> list[str]:
        if row["stored"] is None:
            return ["does not fit", "-", "-"]
        shares = (f"{row[name]:.0%}" for name in ("share_of_copy", "share_of_matmul"))
        return [_time(row["stored"]), *shares]

    header = ["", "stored", "of the copy bandwidth", "of the matrix product", "recomputed"]
    return header, [
        [f"n = {row['n']:,}, {row['num_columns']} columns", *cells(row), _time(row["recomputed"])]
        for row in result["rows"]
    ]


def _steps(result: dict) -> Rows:
    times = {row["method"]: row["time"]["median"] for row in result["rows"] if row["fits"]}
    ours = times.get("RangeFormer")
    rows = []
    for row in result["rows"]:
        if not row["fits"]:
            rows.append([row["method"], "does not fit", "-", "-", "-"])
            continue
        ratio = "-" if ours is None else f"{row['time']['median'] / ours:.2f}"
        errors = (error_text(row[name]) for name in ("loss_error", "gradient_error"))
        rows.append([row["method"], _time(row["time"]), ratio, *errors])
    for name, label, of in (
        ("whole", "set-up alone", "RangeFormer"),
        ("reused", "set-up alone, structure reused", "RangeFormer, structure reused"),
    ):
        share = f"{result['setup'][name]['median'] / times[of]:.0%} of its step" if of in times else "-"
        rows.append([label, _time(result["setup"][name]), share, "-", "-"])
    return ["", "step", "over RangeFormer's", "loss error", "gradient error"], rows


def _sketches(result: dict) -> Rows:
    return ["", "passes", "time", "excess error"], [
        [row["method"], str(row["passes"]), _time(row["time"]), f"{row['excess']:.4f}"] for row in result["rows"]
    ]


def _throughput(result: dict) -> Rows:
    return ["", "matrices per second", "share of drawing them"], [
        [row["config"], f"{row['matrices_per_second']:.0f}", f"{row['share_of_drawing']:.0%}"] for row in result["rows"]
    ]


def _members(result: dict) -> Rows:
    return ["", "median error", "upper quartile", "time of an answer"], [
        [
            f"{row['model']}: {row['operation']}, n = {row['n']:,}",
            error_text(row["median"]),
            error_text(row["upper"]),
            _time(row["time"]),
        ]
        for row in result["rows"]
    ]


def _time(timing: dict) -> str:
    return duration(timing["median"])


STEPS = ("step-small", "step-middle", "step-large")
TABLES: dict[str, Callable[[dict], Rows]] = {
    "ceilings": _ceilings,
    "products": _products,
    **dict.fromkeys(STEPS, _steps),
    "sketches": _sketches,
    "throughput": _throughput,
    "members": _members,
}
"""By part; the others write results of their own kind, with their own tables."""
