"""Every part runs end to end with tiny models, and its table, JSON and picture agree."""

import json

import pytest

from experiments import tables
from experiments.common.models import paper_models
from experiments.common.options import parse
from experiments.ood import generalization as ood_generalization
from experiments.ood import loops as ood_loops
from experiments.ood import suite as ood_suite
from experiments.ood.families import FAMILIES


def run(tmp_path, part: str, *options: str) -> dict:
    arguments = ["--smoke", "--part", part, "--output", str(tmp_path), *options]
    return ood_generalization.main(parse(ood_generalization.Config, arguments))


@pytest.mark.parametrize("part", ["families", "loops", "matrices", "ladder", "lawt"])
def test_smoke_writes_table_json_and_picture(tmp_path, part):
    result = run(tmp_path, part)
    assert json.loads((tmp_path / f"ood_{part}.json").read_text()) == result
    assert (tmp_path / f"ood_{part}.png").stat().st_size > 5_000
    assert "laws that imitate real matrices" in result["source"]
    header, rows = ood_generalization.PARTS[part].comparison(result)
    assert rows
    assert all(len(row) == len(header) for row in rows)
    assert tables.markdown(result).count("\n|") == len(rows) + 2


def test_families_have_a_table_for_every_operation_and_size(tmp_path):
    result = run(tmp_path, "families")
    header, rows = ood_suite.comparison(result, "solve-20")
    assert [row[0] for row in rows] == list(FAMILIES)
    zero = dict(zip(header, next(row for row in rows if row[0] == "zero"), strict=True))
    assert zero["paper"] == "no answer exists, none reported"
    assert zero["Galerkin, trained"] == "1/1 reported"
    assert zero["direct"] == "1/1 reported"
    direct = [cell for cell in result["cells"] if cell["column"] == "direct" and cell["errors"]]
    assert max(cell["median"] for cell in direct) < 1e-8
    assert set(result["gates"]["worst_family"]) == {"solve-20", "eigenvalues-20", "logdet-20", "inverse-20"}


def test_a_case_rises_only_beyond_slack_and_rounding():
    case = {"loops": [1, 2, 4], "floor": 1e-12, "trained": 2}
    assert not ood_loops.rises({**case, "errors": [1.0, 0.5, 0.54]})
    assert ood_loops.rises({**case, "errors": [1.0, 0.5, 0.56]})
    assert not ood_loops.rises({**case, "errors": [1e-15, 1e-13, 1e-12]})
    rising_early = {**case, "errors": [0.5, 1.0, 0.9]}
    assert ood_loops.rises(rising_early)
    assert not ood_loops.rises(rising_early, start=2)


@pytest.mark.parametrize("trained", [2, 3, 16])
def test_loops_go_from_one_to_four_times_the_trained_number(trained):
    loops = ood_loops.grid(trained)
    assert loops[0] == 1
    assert loops[-1] == 4 * trained
    assert trained in loops
    assert loops == sorted(set(loops))


def test_a_ladder_of_checkpoints_is_read_in_order(tmp_path):
    import rangeformer as rf

    for i, (name, model) in enumerate(paper_models(tiny=True).items()):
        rf.save(model, tmp_path / f"ladder-{i}.safetensors", {"rung": f"rung {i}: {name}"})
    arguments = ["--part", "ladder", "--num-draws", "1", "--weights", str(tmp_path), "--output", str(tmp_path)]
    result = ood_generalization.main(parse(ood_generalization.Config, arguments))
    assert [row["rung"] for row in result["rows"]] == [
        "rung 0: solve",
        "rung 1: eigenvalues",
        "rung 2: logdet",
        "rung 3: inverse",
    ]


def test_an_empty_ladder_says_so(tmp_path):
    arguments = ["--part", "ladder", "--weights", str(tmp_path)]
    with pytest.raises(ValueError, match="must be a folder with files ladder-"):
        ood_generalization.main(parse(ood_generalization.Config, arguments))


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--sizes", "20,many"], "must be numbers with commas"), (["--num-draws", "0"], "must be at least 1")],
)
def test_bad_options_say_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        parse(ood_generalization.Config, options)


def test_a_folder_without_lawt_models_says_so(tmp_path):
    with pytest.raises(ValueError, match="must be a folder with files lawt-eigenvalues-"):
        ood_generalization.main(
            parse(ood_generalization.Config, ["--part", "lawt", "--weights", str(tmp_path), "--output", str(tmp_path)])
        )
