import pytest
import torch
from helpers import normal, seeded

from rangeformer.distributions import RECTANGULAR_DISTRIBUTIONS
from rangeformer.pretrain import Plan, pretrain
from sketching.learning.task import VALIDATION_DISTRIBUTIONS, SketchTask, as_a_table, draw_target
from sketching.pretrain import CONFIGS, TASKS
from sketching.sketches.random_features import RandomFeatures

TINY = {
    "model": {"channels": 8, "num_heads": 2, "num_waves": 24, "num_learned": 4},
    "laws": ["smooth_field", "kernel_grid"],
    "sizes": [48, 64],
    "all_sizes_at": 0.5,
    "batch_size": 2,
    "ranks": [3, 6],
    "rows": [6, 12],
    "validation_laws": ["cross_kernel"],
    "validation_shape": [50, 40],
    "validation_rank": 5,
    "validation_rows": [8],
    "validation_members": 1,
}


def plan(**run) -> Plan:
    return Plan.from_fields({"task": "sketch", "settings": TINY, "run": {"num_threads": 1, **run}}, tasks=TASKS)


def test_batches_are_what_the_settings_say():
    task = plan().task
    assert isinstance(task, SketchTask)
    for seed in range(5):
        batch = task.draw(seeded(seed), 0.9)
        assert len(batch.targets) == len(batch.num_rows) == len(batch.shares) == 2
        for target, num_rows in zip(batch.targets, batch.num_rows, strict=True):
            m, n = target.matrix.shape
            assert n in (48, 64)
            assert n // 2 <= m <= 2 * n
            assert 3 <= target.rank <= 6
            assert 6 <= num_rows <= min(12, m // 2)
    first, again = (task.draw(seeded(3), 0.9).targets[0].matrix for _ in range(2))
    assert torch.equal(first, again)


def test_training_starts_at_the_untrained_lift_and_never_ends_below_it():
    result = pretrain(plan(num_steps=8, learning_rate=1e-2, validate_every=4, weight_average=0.5))
    record = result.record
    assert record.untrained == {"ratio": pytest.approx(1), "worst": pytest.approx(1)}
    assert record.best["ratio"] <= 1
    assert record.num_skipped == 0
    assert set(record.best_table[0]) == {"law", "rows", "untrained", "ratio"}


def test_validation_is_of_other_laws_and_the_same_every_time():
    task = plan().task
    assert not set(SketchTask().laws) & set(VALIDATION_DISTRIBUTIONS)
    first, again = task.validation_set(), task.validation_set()
    assert [distribution for distribution, _ in first] == ["cross_kernel"]
    assert torch.equal(first[0][1][0].matrix, again[0][1][0].matrix)


@pytest.mark.parametrize("distribution", [*sorted(RECTANGULAR_DISTRIBUTIONS)[:2], "kernel_grid"])
def test_targets_are_finite_matrices_of_the_law(distribution):
    matrix = draw_target(distribution, (30, 20), seeded())
    assert matrix.shape == ((30, 20) if distribution in RECTANGULAR_DISTRIBUTIONS else (20, 20))
    assert torch.isfinite(matrix).all()


def test_shipped_configuration_is_a_plan():
    for path in CONFIGS.glob("*.json"):
        shipped = Plan.from_file(path.stem, tasks=TASKS, configs=CONFIGS)
        assert Plan.from_fields(shipped.as_fields(), tasks=TASKS) == shipped


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"laws": []}, "`laws` must be some of .* Got none"),
        ({"laws": ["nonsense"]}, r"`laws` must be some of .* Got \['nonsense'\]"),
        ({"laws": ["cross_kernel"]}, r"`validation_laws` must not be trained on. Both have \['cross_kernel'\]"),
        ({"ranks": [6, 3]}, r"`ranks` must be two numbers, 1 <= least <= largest. Got \(6, 3\)"),
        ({"sizes": [20]}, "`sizes` must reach 32"),
        ({"batch_size": 0}, "`batch_size`, .* must be positive"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Plan.from_fields({"task": "sketch", "settings": {**TINY, **settings}}, tasks=TASKS)


def test_tables_have_offsets_zeros_and_columns_of_their_own_sizes():
    matrix = draw_target("smooth_field", (40, 30), seeded())
    tables = [as_a_table(matrix, seeded(seed)) for seed in range(40)]
    assert all(torch.isfinite(table).all() and table.any() for table in tables)
    assert torch.equal(as_a_table(matrix, seeded(3)), tables[3])
    unchanged = sum(torch.equal(table, matrix) for table in tables)
    assert 3 <= unchanged <= 20
    assert any((table == 0).double().mean() > 0.3 for table in tables)
    assert any(table.min() > 0 for table in tables)
    sizes = torch.stack([torch.linalg.vector_norm(table, dim=0) for table in tables])
    assert (sizes.amax(1) / sizes.amin(1).clamp_min(1e-9)).max() > 10


def test_a_lift_of_any_weights_is_finite_where_columns_are_zero():
    random_features = RandomFeatures.untrained()
    rows = normal(9, 30)
    rows[:, 4:11] = 0
    for sign in (-100.0, 100.0):
        dict(random_features.named_parameters())["knobs.2.bias"].fill_(sign)
        features = random_features(rows).features
        assert torch.isfinite(features).all()
        assert (features[4:11] == 0).all()
