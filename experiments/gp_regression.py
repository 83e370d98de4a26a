"""Train an exact Gaussian process on a real table and predict, four ways; say what each costs and how wrong it is.

    python experiments/gp_regression.py

Every method trains the same unmodified GPyTorch model, from the same start, for the same number of Adam steps. Then all
are held against a dense float64 Cholesky at two common points: GPyTorch's initial hyperparameters, and those that the
first method learned.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from experiments.common import datasets, environment, pictures
from experiments.common.options import option, parse
from experiments.common.reporting import progress, say, seconds, show_table, write_json
from experiments.gp import model as gp
from experiments.gp import step as gp_step
from experiments.gp.methods import METHODS, Method

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Config:
    """Exact GP regression on a real table: RangeFormer, GPyTorch's CG and Cholesky, compared."""

    dataset: str = option("diamonds", "diamonds (shipped with plotnine), or the name of a set in --data-dir")
    data: Path | None = option(None, "a CSV file of numbers with a header")
    target: str | None = option(None, "the column of --data to predict; the last one if not given")
    data_dir: Path | None = option(None, "a folder of npz files with arrays X, y and, if the split is fixed, test_mask")
    n: int = option(4000, "training rows")
    num_test: int = option(1000, "test rows, at most")
    kernel: str = option("matern32", "covariance function, one length-scale per feature", tuple(gp.KERNELS))
    steps: int = option(20, "Adam steps")
    learning_rate: float = option(0.2, "of Adam: large, so that few steps arrive")
    methods: str = option(
        ",".join(METHODS), "which methods, comma-separated; the others are checked where the first one ends"
    )
    device: str = option("cpu", "where to compute")
    dtype: str = option("float32", "precision of all methods; the truth is always float64", tuple(DTYPES))
    seed: int = option(0, "of the split, the probes and the preconditioners")
    output: Path = option(Path("results"), "folder of the JSON file and the picture")
    smoke: bool = option(False, "a tiny run that shows that everything works")
    step_only: bool = option(False, "measure one training step at --hyperparameters instead of a training")
    hyperparameters: Path | None = option(None, "JSON with noise_std, signal_std, lengthscales; for --step-only")
    lengthscale_factor: float = option(1.0, "multiplies those length-scales")
    noise_factor: float = option(1.0, "multiplies that noise variance")
    num_seeds: int = option(5, "seeds of --step-only")

    def __post_init__(self):
        """Check what the types do not say."""
        unknown = set(self.methods.split(",")) - set(METHODS)
        if unknown:
            raise ValueError(f"`--methods` must name some of {', '.join(METHODS)}. Got {', '.join(sorted(unknown))}.")
        if min(self.n, self.num_test, self.steps, self.num_seeds) < 1:
            raise ValueError("`--n`, `--num-test`, `--steps` and `--num-seeds` must be at least 1.")


def main(config: Config) -> dict:
    """Run, show, write, and return what was written."""
    if config.smoke:
        # above 800, where GPyTorch itself turns from Cholesky to CG
        config = replace(config, n=min(config.n, 900), num_test=min(config.num_test, 100), steps=2, num_seeds=2)
    environment.prepare()
    device, dtype = torch.device(config.device), DTYPES[config.dtype]
    table = datasets.load(config.dataset, config.data, config.data_dir, config.target)
    split = datasets.split(table, config.n, config.num_test, config.seed, dtype, device)
    (n, num_features), num_test = split.train_x.shape, len(split.test_y)
    methods = {name: METHODS[name] for name in config.methods.split(",")}
    size = f"{n} training rows, {num_test} test rows, {num_features} features"
    say(f"{table.name}: {size}, {config.dtype} on {config.device}")

    start = gp.ExactGP(split, config.kernel)
    shared = {
        # a path says where things lie on this machine; its last part says what they are
        "config": {name: value.name if isinstance(value, Path) else value for name, value in asdict(config).items()},
        "dataset": {"name": table.name, "n": n, "num_test": num_test, "num_features": num_features},
        "environment": environment.describe(device),
    }
    if config.step_only:
        if config.hyperparameters is not None:
            gp.set_hyperparameters(start, config.hyperparameters, config.lengthscale_factor, config.noise_factor)
        result = {
            **shared,
            "methods": gp_step.compare(start, methods, range(config.seed, config.seed + config.num_seeds)),
        }
        gp_step.show(result)
        scaled = (config.lengthscale_factor, config.noise_factor) != (1.0, 1.0)
        factors = f"-l{config.lengthscale_factor:g}-s{config.noise_factor:g}" if scaled else ""
        write_json(config.output / f"gp_step-{table.name}-n{n}-{config.dtype}{factors}.json", result)
        return result

    results, models, predictions = {}, {}, {}
    for name, method in methods.items():
        models[name] = deepcopy(start)
        results[name] = train(models[name], method, config)
        prediction, results[name]["prediction"] = predict(models[name], method, split, config.seed)
        predictions[name] = prediction
    for place, model in (("start", start), ("end", next(iter(models.values())))):
        for name, errors in check(model, methods, config.seed, place).items():
            results[name][place] = errors

    result = {**shared, "methods": results}
    show(result)
    write_json(config.output / f"gp_regression-{table.name}.json", result)
    picture = config.output / f"gp_regression-{table.name}.png"
    pictures.draw_regression(
        picture, result, table, split, *predictions["rangeformer" if "rangeformer" in methods else name]
    )
    say(f"wrote {picture.with_suffix('.json')} and {picture}")
    return result


def train(model: gp.ExactGP, method: Method, config: Config) -> dict:
    """Adam on the marginal likelihood."""
    device = model.train_targets.device
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    losses, times = [], []
    with progress(f"{method.label}: train", config.steps) as advance, method.active(config.seed) as record:
        for _ in range(config.steps):
            with environment.stopwatch(device) as elapsed:
                loss = gp.training_step(model)
                optimizer.step()
            times += elapsed
            losses.append(float(loss))
            advance(f"loss {losses[-1]:.4f}")
    return {
        "label": method.label,
        "losses": losses,
        "step_seconds": times,
        "train_seconds": sum(times),
        "iterations_per_step": record.num_iterations / config.steps,
        "num_fallbacks": record.num_fallbacks,
        "warnings": record.warnings,
        "hyperparameters": gp.hyperparameters(model),
    }


def predict(model: gp.ExactGP, method: Method, split: datasets.Split, seed: int) -> tuple[tuple, dict]:
    """Predictive mean and variance of the test rows, and how good they are."""
    with (
        progress(f"{method.label}: predict", 1) as advance,
        method.active(seed) as record,
        environment.stopwatch(split.test_x.device) as elapsed,
    ):
        mean, variance = gp.predict(model, split.test_x)
        advance("")
    scores = gp.score(mean, variance, split.test_y)
    return (mean, variance), {
        "seconds": elapsed[0],
        "iterations": record.num_iterations,
        "num_fallbacks": record.num_fallbacks,
        "warnings": record.warnings,
        **scores,
    }


def check(model: gp.ExactGP, methods: dict[str, Method], seed: int, place: str) -> dict[str, dict]:
    """Loss and gradient of every method at the model's hyperparameters, against float64 Cholesky."""
    errors = {}
    with progress(f"Float64 truth at the {place}", 1 + len(methods)) as advance:
        truth = gp.truth(model)
        advance("")
        for name, method in methods.items():
            with method.active(seed):
                loss = float(gp.training_step(model))
            advance(method.label)
            errors[name] = {
                "loss_error": abs(loss - truth.loss),
                "gradient_error": truth.gradient_error(gp.gradient(model)),
            }
    return errors


def comparison(result: dict) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the one table: a column for every method."""
    methods = result["methods"].values()

    def row(name: str, text: Callable[[dict], str]) -> list[str]:
        return [name, *(text(method) for method in methods)]

    def failures(method: dict) -> str:
        warnings = len(method["warnings"]) + len(method["prediction"]["warnings"])
        return str(warnings + method["num_fallbacks"] + method["prediction"]["num_fallbacks"])

    return ["", *(method["label"] for method in methods)], [
        row("training step", lambda m: seconds(m["train_seconds"] / len(m["step_seconds"]))),
        row("CG iterations per step", lambda m: f"{m['iterations_per_step']:.0f}" if m["iterations_per_step"] else "-"),
        row("training", lambda m: seconds(m["train_seconds"])),
        row("prediction", lambda m: seconds(m["prediction"]["seconds"])),
        row("loss error, untrained", lambda m: f"{m['start']['loss_error']:.1e}"),
        row("loss error, trained", lambda m: f"{m['end']['loss_error']:.1e}"),
        row("gradient error, untrained", lambda m: f"{m['start']['gradient_error']:.1e}"),
        row("gradient error, trained", lambda m: f"{m['end']['gradient_error']:.1e}"),
        row("failures it reported", failures),
        row("test RMSE", lambda m: f"{m['prediction']['rmse']:.4f}"),
        row("test NLL", lambda m: "-" if m["prediction"]["nll"] is None else f"{m['prediction']['nll']:.4f}"),
        row("inside the 95 % band", lambda m: f"{m['prediction']['coverage']:.1%}"),
    ]


def show(result: dict) -> None:
    """Print the table."""
    show_table(
        f"Exact GP on {result['dataset']['name']}, n = {result['dataset']['n']}",
        *comparison(result),
        (
            "Errors are against float64 Cholesky, at the initial hyperparameters and at",
            "those the first method learned: loss in nats per training row, gradient",
            "relative to the sum of the norms of its two parts. RMSE and NLL: test rows,",
            "target standardised; no NLL where a variance came out negative.",
        ),
    )


if __name__ == "__main__":
    main(parse(Config))
