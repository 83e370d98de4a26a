"""Every part runs end to end; the oracles are oracles."""

import json

import pytest
import torch

from experiments import tables
from experiments.common.options import parse
from experiments.learned_gain import comparison as learned_gain
from experiments.learned_gain import neighbors as gain_neighbors
from experiments.learned_gain import range_features as gain_range
from tests.helpers import conditioned, kernel, normal


@pytest.mark.parametrize("part", learned_gain.PARTS)
def test_smoke_writes_table_json_and_picture(tmp_path, part):
    result = learned_gain.main(parse(learned_gain.Config, ["--smoke", "--part", part, "--output", str(tmp_path)]))
    assert json.loads((tmp_path / f"learned_gain-{part}.json").read_text()) == result
    assert (tmp_path / f"learned_gain-{part}.png").stat().st_size > 5_000
    header, rows = learned_gain.comparison(result)
    assert rows
    assert all(len(row) == len(header) for row in rows)
    assert tables.markdown(result).count("\n|") == len(rows) + 2


def naive_variance(R: torch.Tensor, row: int, chosen: list[int]) -> float:
    if not chosen:
        return float(R[row, row])
    block = R[chosen][:, chosen]
    return float(R[row, row] - R[row, chosen] @ torch.linalg.solve(block, R[chosen, row]))


def naive_selection(R: torch.Tensor, row: int, k: int) -> list[int]:
    chosen: list[int] = []
    for _ in range(min(k, row)):
        rest = [j for j in range(row) if j not in chosen]
        chosen.append(min(rest, key=lambda j: naive_variance(R, row, [*chosen, j])))
    return chosen


@pytest.mark.parametrize("rows_per_chunk", [1, 7, 64])
def test_forward_selection_is_greedy(rows_per_chunk):
    R = conditioned(24, 30.0)
    found = gain_neighbors.forward_selection(R, 4, rows_per_chunk=rows_per_chunk)
    for row in range(24):
        assert [j for j in found[row].tolist() if j >= 0] == naive_selection(R, row, 4)


def test_forward_selection_keeps_to_its_candidates():
    R = conditioned(30, 30.0)
    rows = torch.arange(30).unsqueeze(-1)
    candidates = torch.cat([rows - 1, rows - 3, rows - 4, rows - 6], -1).clamp_min(-1)
    found = gain_neighbors.forward_selection(R, 3, candidates, rows_per_chunk=8)
    for row in range(30):
        allowed = [j for j in candidates[row].tolist() if j >= 0]
        chosen: list[int] = []
        while allowed and len(chosen) < 3:
            chosen.append(min(allowed, key=lambda j: naive_variance(R, row, [*chosen, j])))
            allowed.remove(chosen[-1])
        assert [j for j in found[row].tolist() if j >= 0] == chosen


def test_strongest_earlier_is_a_sort():
    R = conditioned(20, 30.0)
    found = gain_neighbors.strongest_earlier(R, 3)
    for row in range(20):
        score = R[row, :row].square() / R.diagonal()[:row]
        assert [j for j in found[row].tolist() if j >= 0] == score.argsort(descending=True)[:3].tolist()


def test_greedy_explains_more_than_the_strongest():
    R = kernel(60, noise=1e-3)
    k = 4
    greedy, strongest = gain_neighbors.forward_selection(R, k), gain_neighbors.strongest_earlier(R, k)
    total = [
        sum(naive_variance(R, i, [j for j in rows[i].tolist() if j >= 0]) for i in range(60))
        for rows in (greedy, strongest)
    ]
    assert total[0] < total[1]


def test_missed_energy_is_that_of_the_projection():
    K, basis = conditioned(20, 100.0), normal(20, 5)
    Q = torch.linalg.qr(basis).Q
    direct = float((K - Q @ Q.mT @ K).square().sum() / K.square().sum())
    assert gain_range.missed(basis, K) == pytest.approx(direct)
    assert gain_range.missed(torch.cat([basis, 1e3 * basis, torch.zeros(20, 1)], -1), K) == pytest.approx(direct)
    eigenvalues, vectors = torch.linalg.eigh(K)
    best = float(eigenvalues[:-5].square().sum() / eigenvalues.square().sum())
    assert gain_range.missed(vectors[:, -5:], K) == pytest.approx(best)


def test_bad_options_say_what_is_wrong():
    with pytest.raises(ValueError, match="must be at least 1"):
        parse(learned_gain.Config, ["--num-draws", "0"])
