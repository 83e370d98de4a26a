"""Predictions: what a model that writes the exact answer would give, and what cannot be asked."""

import pytest
import torch
from helpers import normal

from rangeformer.baselines.lawt import TASKS, LawtConfig, LawtTransformer, Vocabulary, answer, predict, prediction

SMALL = LawtTransformer(LawtConfig(encoder_width=8, decoder_width=8, encoder_heads=2, decoder_heads=2))


def operands(task: str) -> torch.Tensor:
    A = normal(4, 3, 3)
    if TASKS[task].symmetric:
        return A + A.mT
    p, q = TASKS[task].input_shape(3, 3)
    return normal(4, p, q)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_the_exact_answers_tokens_are_read_as_its_numbers(monkeypatch, task, joint):
    matrices = operands(task)
    exact = answer(task, matrices)
    vocabulary = Vocabulary("P1000")
    written = vocabulary.write(exact, vocabulary.output, task if joint else None)

    def exactly(model, source, max_tokens):
        assert torch.equal(source, vocabulary.write(matrices, vocabulary.input, task if joint else None))
        assert max_tokens == written.shape[1]
        return written

    monkeypatch.setattr(prediction, "greedy", exactly)
    values, well_formed = predict(SMALL, matrices, task, joint=joint)
    assert bool(well_formed.all())
    assert torch.allclose(values, exact, rtol=5e-3)


def test_nonsense_is_malformed_and_keeps_dtype():
    values, well_formed = predict(SMALL, torch.eye(2).expand(3, 2, 2), "eigenvalues", num_beams=2)
    assert values.dtype == torch.float32
    assert values.shape == (3, 2, 1)
    assert not bool(well_formed.any())
    assert bool(values.isnan().all())


@pytest.mark.parametrize(
    ("task", "shape", "message"),
    [
        ("cube", (1, 2, 2), "`task` must be one of"),
        ("eigenvalues", (1, 2, 3), "must be square for the task 'eigenvalues'. Got 2 x 3"),
        ("addition", (1, 2, 3), "must be its operands side by side for the task 'addition'"),
    ],
)
def test_what_cannot_be_asked(task, shape, message):
    with pytest.raises(ValueError, match=message):
        predict(SMALL, torch.ones(shape), task)


def test_numbers_that_cannot_be_written():
    with pytest.raises(ValueError, match="`matrices` must be finite"):
        predict(SMALL, torch.full((1, 2, 2), torch.inf), "transposition")
