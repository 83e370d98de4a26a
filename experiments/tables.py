"""Write the tables of README and docs from the committed results, so that every number in them has a file behind it.

Run it as `python -m experiments.tables` from the root of the checkout.
"""

import json
import re
import textwrap
from pathlib import Path

from experiments import gp_regression
from experiments.gp import preconditioners
from experiments.gp import step as gp_step
from experiments.gpu import views as gpu_views
from experiments.krylov import views as krylov_views
from experiments.lawt import comparison as lawt
from experiments.lawt import measure as lawt_measure
from experiments.learned_gain import comparison as learned_gain
from experiments.low_rank import benchmark as sketching_benchmark
from experiments.low_rank import fewshot as sketching_fewshot
from experiments.low_rank import image_compression
from experiments.low_rank import memmap as sketching_memmap
from experiments.low_rank import products as sketching_products
from experiments.low_rank import speed as sketching_speed
from experiments.ood import ablation as ood_ablation
from experiments.ood import loops as ood_loops
from experiments.ood import matrices as ood_matrices
from experiments.ood import suite as ood_suite

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "sketching.md",
    *(
        ROOT / "docs" / "results" / f"{name}.md"
        for name in ("gaussian-processes", "ood-generalization", "learned-gain", "lawt", "krylov-comparison", "gpu")
    ),
)
RESULTS = ROOT / "experiments" / "results"
# By the "kind" of a result: where its `caption(result, view)` and `comparison(result, view)` are.
KINDS = {
    "krylov-comparison": krylov_views,
    **{f"gpu-{part}": gpu_views for part in gpu_views.TABLES},
    "ood-families": ood_suite,
    "ood-loops": ood_loops,
    "ood-matrices": ood_matrices,
    "ood-ladder": ood_ablation,
    "ood-lawt": ood_suite,
    "sketching-benchmark": sketching_benchmark,
    "sketching-products": sketching_products,
    "sketching-speed": sketching_speed,
    "sketching-memmap": sketching_memmap,
    "sketching-fewshot": sketching_fewshot,
    "image-compression": image_compression,
    **{f"lawt-{table}": lawt for table in lawt_measure.MEASURES},
    **{f"learned_gain-{part}": learned_gain for part in learned_gain.PARTS},
}


def render(page: str, results: Path = RESULTS) -> str:
    """The page with everything between a table's markers written anew from the JSON file the marker names.

    A marker is `<!-- table: name -->`, or `<!-- table: name#view -->` for one of several tables of the same file.
    """

    def table(match: re.Match) -> str:
        path = results / f"{match['name']}.json"
        body = markdown(json.loads(path.read_text()), match["view"] or "") if path.exists() else "Not measured yet.\n"
        return f"{match['begin']}\n{body}{match['end']}"

    pattern = r"(?P<begin><!-- table: (?P<name>[^\s#]+)(#(?P<view>\S+))? -->)\n.*?(?P<end><!-- end of table -->)"
    return re.sub(pattern, table, page, flags=re.DOTALL)


def markdown(result: dict, view: str = "") -> str:
    """One table of a result, with what its numbers depend on."""
    environment = result["environment"]
    versions = environment["versions"]
    machine = environment.get("gpu", f"{environment['cpu']}, {environment['num_threads']} threads")
    if "kind" in result:
        module = KINDS[result["kind"]]
        header, rows = module.comparison(result, view)
        caption = f"{module.caption(result, view)}; {machine}; torch {versions['torch']}."
    else:
        header, rows, caption = _of_a_table(result)
        caption += f"; {machine}; torch {versions['torch']}, GPyTorch {versions['gpytorch']}."
    lines = [
        textwrap.fill(caption, 120, break_long_words=False, break_on_hyphens=False),
        "",
        "| " + " | ".join(header) + " |",
        "|---|" + "---:|" * (len(header) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _of_a_table(result: dict) -> tuple[list[str], list[list[str]], str]:
    """Header, rows and caption of a result of one regression table."""
    config, data = result["config"], result["dataset"]
    if "runs" in result:
        header, rows = preconditioners.comparison(result)
        caption = (
            f"{data['n']:,} rows, {data['num_features']} features; float64, to {config['rtol']:g}, seed "
            f"{config['seed']}"
        )
    else:
        is_step = config["step_only"]
        header, rows = (gp_step if is_step else gp_regression).comparison(result)
        caption = _step_caption(config, data) if is_step else _regression_caption(config, data)
    return header, rows, f"{data['name'].capitalize()}, {caption}"


def _regression_caption(config: dict, data: dict) -> str:
    sizes = f"{data['n']:,} training and {data['num_test']:,} test rows, {data['num_features']} features"
    return f"{sizes}; {config['kernel']}, {config['dtype']}, {config['steps']} Adam steps, seed {config['seed']}"


def _step_caption(config: dict, data: dict) -> str:
    factors = f"length-scales x {config['lengthscale_factor']:g}, noise x {config['noise_factor']:g}"
    work = f"one training step, {factors}, {config['num_seeds']} seed(s)"
    return f"{data['n']:,} rows, {data['num_features']} features; {config['kernel']}, {config['dtype']}, {work}"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text()))
