"""What the range features are worth: the share of ||K||_F^2 that a subspace of r dimensions misses.

At the price of c columns of A: those columns alone, with Gaussian directions beside them, and the features of the
untrained and of the trained model (r = c + waves). At the price of one pass: r Gaussian vectors, or r directions of the
features, multiplied by A. With as many columns as
dimensions: r pivoted columns. The best there is: r eigenvectors. On Haar bases (the distribution `spectral_decay`) the
cosine features have nothing to
find: beside the columns they must be worth what Gaussian directions are.
"""

import torch
from torch import Tensor

import rangeformer as rf
from experiments.common.measures import captured, error_text, geometric_mean, share_text
from experiments.common.reporting import progress
from experiments.learned_gain.neighbors import kernel_system
from rangeformer.distributions import DISTRIBUTIONS
from rangeformer.models.features import RangeFormer
from rangeformer.operators.dense import DenseOperator
from rangeformer.preconditioners.pivoted import PivotedFactor, pivoted_cholesky

NUM_COLUMNS = 64
CONTROL = "Haar (control)"
SUBSPACES = (
    "columns",
    "columns + Gaussian",
    "features, untrained",
    "features, trained",
    "one pass, Gaussian",
    "one pass, untrained",
    "one pass, trained",
    "more columns",
    "best",
)


def measure(tables: dict, num_draws: int) -> list[dict]:
    """One row for every table (and the control) and draw: missed energies of every subspace."""
    models = {"untrained": RangeFormer.untrained(), "trained": rf.load()}
    rows = []
    with progress("Range features", (len(tables) + 1) * num_draws) as advance:
        for name, (table, n) in tables.items():
            for seed in range(num_draws):
                operator, _ = kernel_system(table, n, seed)
                rows.append({"dataset": name, "n": n, "seed": seed, "missed": compare(operator, models, seed)})
                advance(f"{name}, draw {seed}")
        n = max(n for _, n in tables.values())
        for seed in range(num_draws):
            generator = torch.Generator().manual_seed(seed)
            B = DISTRIBUTIONS["spectral_decay"](n, generator, torch.float64)
            B = (B + B.mT) / (2 * B.diagonal().mean())
            operator = DenseOperator(B, torch.full((n,), 1e-2, dtype=torch.float64))
            rows.append({"dataset": CONTROL, "n": n, "seed": seed, "missed": compare(operator, models, seed)})
            advance(f"{CONTROL}, draw {seed}")
    return rows


def compare(operator: DenseOperator, models: dict[str, RangeFormer], seed: int) -> dict[str, float]:
    """Missed energies of every subspace of K = A - noise."""
    generator = torch.Generator().manual_seed(seed)
    K, n = operator.matrix, operator.num_rows
    c = min(NUM_COLUMNS, n // 4)
    pivoted = pivoted_cholesky(operator, c, noise=operator.noise, generator=generator)
    features = {name: _features(model, pivoted) for name, model in models.items()}
    rank = features["trained"].shape[-1]
    gaussian = torch.randn(n, rank, generator=generator, dtype=K.dtype)
    more = pivoted_cholesky(operator, rank, noise=operator.noise, generator=generator)
    eigenvalues = torch.linalg.eigvalsh(K)
    found = {
        "columns": missed(pivoted.factor, K),
        "columns + Gaussian": missed(torch.cat([pivoted.factor, gaussian[:, c:]], -1), K),
        "one pass, Gaussian": missed(K @ gaussian, K),
        "more columns": missed(more.factor, K),
        "best": float(eigenvalues[:-rank].square().sum() / eigenvalues.square().sum()),
    }
    for name, psi in features.items():
        found[f"features, {name}"] = missed(psi, K)
        found[f"one pass, {name}"] = missed(K @ psi, K)
    return found


def _features(model: RangeFormer, pivoted: PivotedFactor) -> Tensor:
    inputs = (pivoted.factor, pivoted.residual_diagonal, pivoted.diagonal)
    with torch.no_grad():
        return model(*(x.unsqueeze(0) for x in inputs)).range.squeeze(0).to(torch.float64)


def missed(basis: Tensor, K: Tensor) -> float:
    """||K - Q Q^T K||_F^2 / ||K||_F^2, Q orthonormal with the span of `basis`."""
    size = torch.linalg.vector_norm(basis, dim=0)
    basis = basis / torch.where(size > 0, size, torch.ones_like(size))
    U, S, _ = torch.linalg.svd(basis, full_matrices=False)
    Q = U[:, 1e-12 * S[0] < S]
    return float((K - Q @ (Q.mT @ K)).square().sum() / K.square().sum())


def gains(rows: list[dict]) -> dict:
    """Shares of the headroom to the best subspace.

    Trained over untrained, and trained over Gaussian directions, by table.
    """
    found = {}
    for name in dict.fromkeys(row["dataset"] for row in rows):
        group = [row["missed"] for row in rows if row["dataset"] == name]

        def of(start: str, ours: str, group: list = group) -> dict | None:
            return captured(*([row[key] for row in group] for key in (start, ours, "best")))

        found[name] = {
            "untrained to trained": of("features, untrained", "features, trained"),
            "columns + Gaussian to trained": of("columns + Gaussian", "features, trained"),
            "one pass, Gaussian to trained": of("one pass, Gaussian", "one pass, trained"),
        }
    return found


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows: a column for every table, geometric means over its draws."""
    names = [*dict.fromkeys(row["dataset"] for row in result["rows"])]
    groups = {name: [row["missed"] for row in result["rows"] if row["dataset"] == name] for name in names}
    rows = [
        [label, *(error_text(geometric_mean([m[label] for m in groups[name]])) for name in names)]
        for label in SUBSPACES
    ]
    for key in next(iter(result["gains"].values())):
        rows.append([f"captured: {key}", *(share_text(result["gains"][name][key]) for name in names)])
    return ["", *names], rows


def caption(result: dict, view: str = "") -> str:
    """What the numbers are."""
    return (
        f"Range features: share of ||K||_F^2 missed by {NUM_COLUMNS} columns and what is built on them, geometric "
        "mean of "
        f"{result['config']['num_draws']} draws"
    )
