import torch
from helpers import normal, seeded
from sketch_examples import haar, smooth

from sketching.sketches.candidates import LIFT_SHARES
from sketching.sketches.holdout import Trial, decide, effective_number, joined, leading_coefficients, make_folds
from sketching.sketches.random_features import RandomFeatures


def decision_of(rows, num_columns):
    random_features, folds = RandomFeatures.untrained(), make_folds(len(rows), num_columns, rows.device)
    trials = [Trial(fold, rows[~fold], (random_features(rows[~fold], generator=seeded()).features,)) for fold in folds]
    return decide(rows, trials, num_columns, [LIFT_SHARES])


def test_lift_is_chosen_where_entries_move_together_and_not_where_they_are_random():
    assert decision_of(smooth()[:24], 40).share > 0
    assert decision_of(normal(24, 300), 40).share == 0
    assert decision_of(haar(200, 150, power=0.1)[:60], 40).share == 0


def test_heavy_rows_call_for_noise():
    rows = smooth(60, 120)[:40]
    calm = decision_of(rows, 30).noise
    rows[7] += 100 * normal(120)
    assert decision_of(rows, 30).noise > 10 * calm


def test_leading_coefficients_are_eigenvectors_of_the_blend():
    rows, features = normal(5, 30), normal(30, 7)
    features = features / torch.linalg.matrix_norm(features)
    weights = torch.cat([torch.ones(5), torch.full((7,), 0.3)]).double()
    table = joined(rows, features)
    V = table @ leading_coefficients(table.mT @ table, weights, 4)
    blend = rows.mT @ rows / rows.square().sum() + 0.09 * features @ features.mT
    torch.testing.assert_close(V.mT @ V, torch.eye(4, dtype=torch.float64))
    leading = torch.linalg.eigh(blend)[1][:, -4:]
    torch.testing.assert_close(V @ V.mT, leading @ leading.mT)


def test_effective_number():
    assert effective_number(torch.ones(7).double()) == 7
    assert effective_number(torch.tensor([1e200, 0.0]).double()) == 1
    assert effective_number(torch.zeros(3).double()) == 3


def test_a_guess_must_beat_those_before_it():
    rows = smooth()[:24]
    folds = make_folds(len(rows), 40, rows.device)
    truth = torch.linalg.svd(smooth(), full_matrices=False).Vh[:40].mT
    truth, chance = truth / truth.norm(), normal(120, 40) / normal(120, 40).norm()
    random_features = RandomFeatures.untrained()

    def decided(*candidates):
        trials = [
            Trial(fold, rows[~fold], (random_features(rows[~fold], generator=seeded()).features, *candidates))
            for fold in folds
        ]
        return decide(rows, trials, 40, [LIFT_SHARES] * (1 + len(candidates)))

    alone = decided()
    assert decided(chance) == alone
    assert (decided(truth).candidate, decided(chance, truth).candidate) == (1, 2)
    assert decided(truth).missed < alone.missed
    # the same candidate twice: the one that rests on less
    assert decided(truth, truth).candidate == 1
