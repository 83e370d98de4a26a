"""What is charged for is what is used, and the script runs end to end."""

import json

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from experiments import tables
from experiments.common.options import parse
from experiments.low_rank import products as sketching_products
from experiments.low_rank.matrices import control


def test_smoke_writes_tables_and_json(tmp_path):
    options = parse(sketching_products.Config, ["--smoke", "--output", str(tmp_path)])
    result = sketching_products.main(options)
    assert json.loads((tmp_path / "sketching-products.json").read_text()) == result
    for view in sketching_products.VIEWS:
        header, rows = sketching_products.comparison(result, view)
        assert rows
        assert all(len(row) == len(header) for row in rows)
        assert tables.markdown(result, view).count("\n|") == len(rows) + 2


@pytest.mark.parametrize("name", sketching_products.METHODS)
def test_products_are_counted_and_the_answer_is_an_approximation(name):
    case, spent = control(60), [0, 0]

    def multiply(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        spent[0] += vectors.shape[1]
        spent[1] += 1
        return matrix @ vectors

    operator = scipy.sparse.linalg.LinearOperator(
        case.A.shape,
        matvec=lambda x: case.A @ x,
        matmat=lambda x: multiply(case.A, x),
        rmatmat=lambda x: multiply(case.A.T, x),
        dtype=case.A.dtype,
    )
    found = sketching_products.METHODS[name](operator, case.rank, torch.Generator().manual_seed(0))
    rides_along = 0 if name.startswith("half") else sketching_products.NUM_TEST_VECTORS
    assert spent == [found.num_products + rides_along, found.num_passes]
    excess = sketching_products.error(case.A, found.factors) / case.optimum(case.rank) - 1
    assert -1e-9 <= excess < 0.5


def test_those_of_as_many_products_take_as_many():
    operator = scipy.sparse.linalg.aslinearoperator(control(60).A)
    generator = torch.Generator().manual_seed(0)
    ours, *rivals = (
        method(operator, 20, generator).num_products for method in list(sketching_products.METHODS.values())[:4]
    )
    assert all(ours <= rival <= ours + 3 for rival in rivals)


def test_bad_options_say_what_is_wrong():
    with pytest.raises(ValueError, match="must be at least 1"):
        parse(sketching_products.Config, ["--num-seeds", "0"])
