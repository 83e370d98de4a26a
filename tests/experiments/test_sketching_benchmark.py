"""Both sketching scripts run end to end."""

import json

import pytest

from experiments import image_compression, sketching_benchmark
from experiments.options import parse


@pytest.mark.parametrize(
    ("script", "name"), [(sketching_benchmark, "sketching-benchmark"), (image_compression, "image-compression")]
)
def test_smoke_writes_table_json_and_picture(tmp_path, script, name):
    result = script.main(parse(script.Config, ["--smoke", "--output", str(tmp_path)]))
    assert json.loads((tmp_path / f"{name}.json").read_text()) == json.loads(json.dumps(result))
    assert (tmp_path / f"{name}.png").stat().st_size > 5_000
    header, rows = script.comparison(result)
    assert rows
    assert all(len(row) == len(header) for row in rows)
