"""What the neighbour features are worth: the same pivots, order, candidates and re-ranking, only the proposal differs.

Proposals: the untrained model, the trained model, and two oracles that look at *all* earlier rows: `oracle` ranks them
by their exact residual correlation, as the re-ranking does with its candidates, and `greedy` takes the row that lowers
the conditional variance most, given those already taken (forward selection), which is better because neighbours repeat
each other. `selection` is forward selection among the untrained model's candidates only: another rule, no other
proposal. `random` proposes rows that mean nothing. The number of columns and of neighbours, and so the cost of an
iteration, is the same in all. Rivals without neighbours get as many columns (random pivots) or sketch vectors (Nystrom)
as our preconditioner reads entries of A, counted in columns.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import rangeformer as rf
from experiments.common import datasets
from experiments.common.classical import conjugate_gradients, steps_to
from experiments.common.measures import captured, share_text
from experiments.common.reporting import progress
from rangeformer.distributions import kernel_matrix
from rangeformer.models.features import RangeFormer
from rangeformer.operators.dense import DenseOperator
from rangeformer.preconditioners.base import Preconditioner, Structure
from rangeformer.preconditioners.budget import choose_budget
from rangeformer.preconditioners.neighbors import nearest_earlier, strongest
from rangeformer.preconditioners.pilot import pilot
from rangeformer.preconditioners.pivoted import PivotedFactor, pivoted_cholesky

HYPERPARAMETERS = Path(__file__).resolve().parent.parent / "hyperparameters"
PROPOSALS = ("untrained", "trained", "selection", "oracle", "greedy")
RIVALS = ("rpcholesky", "nystrom")
WAYS = (("trained", "oracle"), ("trained", "greedy"), ("selection", "greedy"))
UNITS = {"nats": "half_mean_log_variance", "iterations": "iterations_fine"}
RTOL = 1e-6
NUM_PROBES = 10
_MOST_STEPS = 500
_CANDIDATES_PER_NEIGHBOR = 4  # as in `rangeformer.preconditioners.build`


@dataclass(frozen=True)
class Proposal:
    """A matrix read by its pivots, and the order in which its rows may lean on each other."""

    operator: DenseOperator
    pivoted: PivotedFactor
    residual: Tensor  # (n,) diagonal of R = A - F F^T
    order: Tensor  # (n,)
    num_neighbors: int

    def candidates(self, model: RangeFormer) -> Tensor:
        """Rows near in the model's tokens, (n, 4 k)."""
        inputs = (self.pivoted.factor, self.pivoted.residual_diagonal, self.pivoted.diagonal)
        with torch.no_grad():
            tokens = model(*(x.unsqueeze(0) for x in inputs)).neighbors.squeeze(0)
        return self._nearest(tokens)

    def at_random(self, generator: torch.Generator) -> Tensor:
        """Rows near in tokens that mean nothing, (n, 4 k)."""
        return self._nearest(torch.randn(len(self.order), 8, generator=generator, dtype=torch.float64))

    def ranked(self, candidates: Tensor) -> Tensor:
        """The strongest of the candidates by exact entries, (n, k): what the preconditioner does."""
        return strongest(self.operator, self.pivoted.factor, self.residual, candidates, self.num_neighbors)

    def oracles(self, candidates: Tensor) -> dict[str, Tensor]:
        """The best neighbours by exact entries, among all earlier rows and among candidates: at once, and greedily."""
        F = self.pivoted.factor[self.order]
        R = self.operator.matrix[self.order][:, self.order] - F @ F.mT
        R.diagonal().copy_(self.residual[self.order])
        found = {
            "oracle": strongest_earlier(R, self.num_neighbors),
            "greedy": forward_selection(R, self.num_neighbors),
            "selection": forward_selection(R, self.num_neighbors, self._to_positions(candidates)),
        }
        return {name: self._to_rows(positions) for name, positions in found.items()}

    def _to_positions(self, rows: Tensor) -> Tensor:
        place = torch.empty_like(self.order).scatter_(0, self.order, torch.arange(len(self.order)))
        return place[rows.clamp_min(0)].masked_fill(rows < 0, -1)[self.order]

    def _to_rows(self, positions: Tensor) -> Tensor:
        rows = self.order[positions.clamp_min(0)].masked_fill(positions < 0, -1)
        return torch.empty_like(rows).index_copy_(0, self.order, rows)

    def _nearest(self, tokens: Tensor) -> Tensor:
        return nearest_earlier(tokens, self.order, _CANDIDATES_PER_NEIGHBOR * self.num_neighbors)


def strongest_earlier(R: Tensor, num_neighbors: int) -> Tensor:
    """For every row the earlier rows with the largest R_ij^2 / R_jj, (n, k); -1 where there are not k."""
    score = (R.square() / R.diagonal()).masked_fill(_not_earlier(R), -1.0)
    best = score.topk(num_neighbors, dim=-1)
    return best.indices.masked_fill(best.values < 0, -1)


def forward_selection(
    R: Tensor, num_neighbors: int, candidates: Tensor | None = None, *, rows_per_chunk: int = 64
) -> Tensor:
    """For every row k earlier rows, each the one that lowers the row's conditional variance most, (n, k).

    -1 where there are not k.

    Orthogonal matching pursuit in R's inner product: a partial Cholesky factor of R, pivoted for every row in its own
    way, keeps the conditional covariances of the row with its candidates, and reads k rows of R at the candidates.

    Args:
        R: Positive definite, (n, n).
        num_neighbors: k.
        candidates: (n, m) rows that may be chosen, -1 for none; None for all that are earlier.
        rows_per_chunk: Rows served at a time.
    """
    chosen = torch.full((len(R), num_neighbors), -1)
    for rows in torch.arange(len(R)).split(rows_per_chunk):
        index = torch.arange(int(rows[-1]) + 1).expand(len(rows), -1) if candidates is None else candidates[rows]
        free = (index >= 0) & (index < rows.unsqueeze(-1))
        index = index.clamp_min(0)
        prior = R.diagonal()[index]
        variance, covariance = prior, R[rows.unsqueeze(-1), index]  # (q, m), given what was chosen
        factors = R.new_zeros(*index.shape, num_neighbors)
        for j in range(min(num_neighbors, index.shape[-1])):
            usable = free & (variance > 1e-10 * prior)
            best = (covariance.square() / variance).masked_fill(~usable, -1.0).max(-1, keepdim=True)
            found, place = best.values >= 0, best.indices  # (q, 1)
            pick = index.gather(1, place)
            chosen[rows, j] = pick.masked_fill(~found, -1).squeeze(-1)
            at_pick = factors[..., :j].gather(1, place.unsqueeze(-1).expand(-1, 1, j))
            column = R[pick, index] - (factors[..., :j] @ at_pick.mT).squeeze(-1)
            root = torch.where(found, variance.gather(1, place), 1.0).sqrt()
            column = torch.where(found, column / root, 0.0)
            factors[..., j] = column
            covariance = covariance - column * (covariance.gather(1, place) / root)
            variance = variance - column.square()
            free = free.scatter(1, place, False)
    return chosen


def _not_earlier(R: Tensor) -> Tensor:
    return ~torch.ones_like(R, dtype=torch.bool).tril(-1)


def measure(tables: dict[str, tuple[datasets.Table, int]], num_draws: int) -> list[dict]:
    """One row for every table and draw of its rows: iterations, log-variances and costs of every proposal and rival."""
    models = {"untrained": RangeFormer.untrained(), "trained": rf.load()}
    rows = []
    with progress("Neighbours", len(tables) * num_draws) as advance:
        for name, (table, n) in tables.items():
            for seed in range(num_draws):
                rows.append({"dataset": name, "seed": seed, **compare(*kernel_system(table, n, seed), models, seed)})
                advance(f"{name}, draw {seed}")
    return rows


def kernel_system(table: datasets.Table, n: int, seed: int) -> tuple[DenseOperator, Tensor]:
    """Kernel plus stated noise at the committed hyperparameters, and the standardised target."""
    split = datasets.split(table, n, 1, seed, torch.float64, torch.device("cpu"))
    values = datasets.read_hyperparameters(HYPERPARAMETERS / f"{table.name}.json")
    points = split.train_x / torch.tensor(values["lengthscales"], dtype=torch.float64)
    K = values["signal_std"] ** 2 * kernel_matrix(points, "matern32")
    noise = torch.full((len(K),), values["noise_std"] ** 2, dtype=torch.float64)
    return DenseOperator(K, noise), split.train_y.unsqueeze(-1)


def compare(operator: DenseOperator, target: Tensor, models: dict[str, RangeFormer], seed: int) -> dict:
    """Every proposal and rival on one kernel matrix with stated noise."""
    generator = torch.Generator().manual_seed(seed)
    rhs = torch.cat([target, torch.randn(len(target), NUM_PROBES, generator=generator, dtype=target.dtype)], -1)
    look = pilot(operator, generator=generator)
    budget = choose_budget(operator, look, rhs.shape[-1])
    num_neighbors = max(budget.num_neighbors, 1)  # a table without room for neighbours shows that, too
    pivoted = pivoted_cholesky(operator, budget.num_columns, noise=look.noise, generator=generator)
    residual = torch.maximum(operator.diagonal() - pivoted.factor.square().sum(-1), 0.1 * look.noise)
    order = torch.randperm(len(target), generator=generator)
    proposal = Proposal(operator, pivoted, residual, order, num_neighbors)
    candidates = {name: proposal.candidates(model) for name, model in models.items()}
    candidates["random"] = proposal.at_random(generator)
    neighbors = {name: proposal.ranked(rows) for name, rows in candidates.items()}
    neighbors |= proposal.oracles(candidates["untrained"])
    n, k, c = len(target), num_neighbors, budget.num_columns
    columns_read = c + _CANDIDATES_PER_NEIGHBOR * k + k * (k + 1)
    found: dict = {"n": n, "num_columns": c, "num_neighbors": k, "columns_read": columns_read, "methods": {}}
    for name, rows in neighbors.items():
        P = rf.build_preconditioner(operator, num_columns=c, num_neighbors=k, structure=Structure(pivoted.pivots, rows))
        log_variance = -2 * P.local.inverse_scale.log().mean()  # pyright: ignore[reportAttributeAccessIssue]
        found["methods"][name] = {"half_mean_log_variance": float(log_variance) / 2}
        if name in PROPOSALS:  # random rows would iterate for minutes to say what their variances say
            run = conjugate_gradients(operator.matmul, rhs, _MOST_STEPS, P.solve, until=RTOL)
            fine = {"iterations_fine": float(steps_to(run, RTOL).mean())}
            found["methods"][name] |= {**iterations(operator, rhs, P), **fine}
    for name in RIVALS:
        P = rf.build_preconditioner(operator, name, num_columns=min(columns_read, n), generator=generator)
        found["methods"][name] = iterations(operator, rhs, P)
    return found


def iterations(operator: DenseOperator, rhs: Tensor, P: Preconditioner) -> dict:
    """Iterations of `linear_solve` for the target alone and together with the probes."""
    target = rf.linear_solve(operator, rhs[:, :1], rtol=RTOL, preconditioner=P)
    block = rf.linear_solve(operator, rhs, rtol=RTOL, preconditioner=P)
    return {
        "iterations_target": target.num_iterations,
        "iterations_block": block.num_iterations,
        "converged": bool(target.converged.all() and block.converged.all()),
    }


def gains(rows: list[dict]) -> dict:
    """Shares of the way from the untrained model to an oracle, by table and over all, in nats and in iterations."""
    names = [*dict.fromkeys(row["dataset"] for row in rows)]
    groups = {name: [row for row in rows if row["dataset"] == name] for name in names} | {"all": rows}

    def of(group: list[dict], ours: str, oracle: str, key: str) -> dict | None:
        return captured(*([row["methods"][name][key] for row in group] for name in ("untrained", ours, oracle)))

    return {
        name: {
            f"{ours}, of the way to {oracle}, in {unit}": of(group, ours, oracle, key)
            for ours, oracle in WAYS
            for unit, key in UNITS.items()
        }
        for name, group in groups.items()
    }


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows: a column for every table, means over its draws."""
    names = [*dict.fromkeys(row["dataset"] for row in result["rows"])]
    groups = {name: [row for row in result["rows"] if row["dataset"] == name] for name in names}

    def line(label: str, method: str, key: str, text: str) -> list[str]:
        values = {name: [row["methods"][method][key] for row in group] for name, group in groups.items()}
        return [label, *(format(sum(found) / len(found), text) for found in values.values()), ""]

    rows = [["n", *(f"{group[0]['n']:,}" for group in groups.values()), ""]]
    for method in (*PROPOSALS, *RIVALS):
        rows.append(line(f"{method}: iterations, target alone", method, "iterations_target", ".1f"))
    for method in (*PROPOSALS, *RIVALS):
        rows.append(line(f"{method}: iterations, with ten probes", method, "iterations_block", ".1f"))
    for method in PROPOSALS:
        rows.append(line(f"{method}: iterations of CG, interpolated", method, "iterations_fine", ".2f"))
    for method in ("random", *PROPOSALS):
        rows.append(line(f"{method}: half the mean log D", method, "half_mean_log_variance", ".5f"))
    for key in result["gains"]["all"]:
        shares = [share_text(result["gains"][name][key]) for name in (*names, "all")]
        rows.append([f"captured: {key}", *shares])
    return ["", *names, "all"], rows


def caption(result: dict, view: str = "") -> str:
    """What the numbers are."""
    return f"Neighbour features, means over {result['config']['num_draws']} draws of the rows; float64, to {RTOL:g}"
