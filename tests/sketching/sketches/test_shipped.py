"""The weights that ship: they are the ones on their card, better than untrained there, and what "rangeformer" means."""

import pytest
import torch
from helpers import seeded
from sketch_examples import mean_excess, smooth

import sketching
from rangeformer.models.checkpoint import read_card
from rangeformer.pretrain import Plan
from sketching.arguments import as_sketch
from sketching.pretrain import CONFIGS, TASKS
from sketching.sketches.shipped import WEIGHTS, trained_random_features


def test_the_card_is_of_the_shipped_configuration_and_says_better():
    card = read_card(WEIGHTS)
    plan = Plan.from_file("sketch", tasks=TASKS, configs=CONFIGS)
    assert Plan.from_fields(card["training"], tasks=TASKS) == plan
    assert card["improved_over_untrained"]
    assert card["validation"]["trained"]["ratio"] < card["validation"]["untrained"]["ratio"]
    for key in ("seed", "training_laws", "history", "run", "versions", "commit", "sha256"):
        assert card[key] is not None, key


def test_rangeformer_by_name_is_the_trained_lift_read_once():
    trained, untrained = as_sketch("rangeformer"), as_sketch("rangeformer-untrained")
    assert isinstance(trained, sketching.RangeFormerSketch)
    assert isinstance(untrained, sketching.RangeFormerSketch)
    sketch = as_sketch("rangeformer")
    assert trained.random_features is trained_random_features() is sketch.random_features  # pyright: ignore[reportAttributeAccessIssue]
    assert trained.random_features.is_trained()
    assert not untrained.random_features.is_trained()


def test_trained_is_used_and_costs_little_where_the_untrained_kernel_is_the_right_one():
    A = smooth(200, 150)
    trained, untrained = (
        mean_excess(A, as_sketch(name), 20, 30, max_rows=24) for name in ("rangeformer", "rangeformer-untrained")
    )
    assert trained != untrained
    assert trained < 1.25 * untrained


def test_finetuning_starts_from_it():
    members = [smooth(40 + k, 30) for k in range(3)]
    random_features = sketching.finetune(None, members, 5, max_rows=10, num_steps=0, generator=seeded())
    for name, parameter in trained_random_features().named_parameters():
        assert torch.equal(parameter, random_features.get_parameter(name))


def test_the_old_names_say_the_new_ones():
    with pytest.warns(DeprecationWarning, match="Lift.*RandomFeatures"):
        old = sketching.Lift
    assert old is sketching.RandomFeatures
    with pytest.warns(DeprecationWarning, match="`lift` is now called `random_features`"):
        sketch = sketching.RangeFormerSketch(lift=old.untrained())
    assert isinstance(sketch.random_features, sketching.RandomFeatures)
    with pytest.warns(DeprecationWarning, match="`law` is now called `distribution`"):
        assert sketching.SampledRowSpace(law="norm").distribution == "norm"
    with pytest.raises(AttributeError, match="no attribute 'Unheard'"):
        _ = sketching.Unheard
