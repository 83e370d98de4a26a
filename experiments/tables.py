"""Write the tables of the README from the committed results, so that every number in it has a file behind it.

Run it as `python -m experiments.tables` from the root of the checkout.
"""

import json
import re
from pathlib import Path

from experiments.gp_regression import comparison

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"


def render(readme: str, results: Path = RESULTS) -> str:
    """The README with everything between a table's markers written anew from the JSON file the marker names."""

    def table(match: re.Match) -> str:
        path = results / f"{match['name']}.json"
        body = markdown(json.loads(path.read_text())) if path.exists() else "Not measured yet.\n"
        return f"{match['begin']}\n{body}{match['end']}"

    pattern = r"(?P<begin><!-- table: (?P<name>\S+) -->)\n.*?(?P<end><!-- end of table -->)"
    return re.sub(pattern, table, readme, flags=re.DOTALL)


def markdown(result: dict) -> str:
    """One result of `gp_regression`, with what the numbers depend on."""
    header, rows = comparison(result)
    config, environment, data = result["config"], result["environment"], result["dataset"]
    versions = environment["versions"]
    machine = environment.get("gpu", f"{environment['cpu']}, {environment['num_threads']} threads")
    sizes = f"{data['n']:,} training and {data['num_test']:,} test rows, {data['num_features']} features"
    settings = f"{config['kernel']}, {config['dtype']}, {config['steps']} Adam steps, seed {config['seed']}"
    lines = [
        f"{data['name'].capitalize()}, {sizes}; {settings}; {machine}; "
        f"torch {versions['torch']}, GPyTorch {versions['gpytorch']}.",
        "",
        "| " + " | ".join(header) + " |",
        "|---|" + "---:|" * (len(header) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text()))
