"""Write the tables of README and docs from the committed results, so that every number in them has a file behind it.

Run it as `python -m experiments.tables` from the root of the checkout.
"""

import json
import re
from pathlib import Path

from experiments import gp_regression, gp_step, preconditioners

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")
RESULTS = ROOT / "experiments" / "results"


def render(page: str, results: Path = RESULTS) -> str:
    """The page with everything between a table's markers written anew from the JSON file the marker names."""

    def table(match: re.Match) -> str:
        path = results / f"{match['name']}.json"
        body = markdown(json.loads(path.read_text())) if path.exists() else "Not measured yet.\n"
        return f"{match['begin']}\n{body}{match['end']}"

    pattern = r"(?P<begin><!-- table: (?P<name>\S+) -->)\n.*?(?P<end><!-- end of table -->)"
    return re.sub(pattern, table, page, flags=re.DOTALL)


def markdown(result: dict) -> str:
    """One result of `gp_regression`, with what the numbers depend on."""
    config, environment, data = result["config"], result["environment"], result["dataset"]
    if "runs" in result:
        header, rows = preconditioners.comparison(result)
        caption = f"{data['n']:,} rows, {data['num_features']} features; float64, to {config['rtol']:g}, seed {config['seed']}"
    else:
        is_step = config["step_only"]
        header, rows = (gp_step if is_step else gp_regression).comparison(result)
        caption = _step_caption(config, data) if is_step else _regression_caption(config, data)
    versions = environment["versions"]
    machine = environment.get("gpu", f"{environment['cpu']}, {environment['num_threads']} threads")
    lines = [
        f"{data['name'].capitalize()}, {caption}; {machine}; "
        f"torch {versions['torch']}, GPyTorch {versions['gpytorch']}.",
        "",
        "| " + " | ".join(header) + " |",
        "|---|" + "---:|" * (len(header) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


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
