import json

import numpy as np
import pytest

from experiments.common.options import parse
from experiments.low_rank import fewshot as sketching_fewshot
from experiments.low_rank.families import FAMILIES


def test_smoke_writes_table_json_and_picture(tmp_path):
    result = sketching_fewshot.main(parse(sketching_fewshot.Config, ["--smoke", "--output", str(tmp_path)]))
    assert json.loads((tmp_path / "sketching-fewshot.json").read_text()) == json.loads(json.dumps(result))
    assert (tmp_path / "sketching-fewshot.png").stat().st_size > 5_000
    header, rows = sketching_fewshot.comparison(result)
    assert rows
    assert all(len(row) == len(header) for row in rows)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_member_to_learn_from_is_held_out(name):
    family = FAMILIES[name](24)
    assert (len(family.members), len(family.held_out)) == (24, 10)
    assert len({A.shape[1] for A in family.members + family.held_out}) == 1
    assert not any(np.array_equal(A, B) for A in family.members for B in family.held_out)


@pytest.mark.parametrize("arguments", [["--num-members", "1"], ["--num-members", "3,31"], ["--num-seeds", "0"]])
def test_impossible_options(arguments):
    with pytest.raises(ValueError, match=rf"`{arguments[0]}` must be"):
        parse(sketching_fewshot.Config, arguments)
