"""Matrices as sequences: lengths, shape tokens, strict reading."""

import pytest
import torch
from helpers import normal
from hypothesis import given, settings
from hypothesis import strategies as st

from rangeformer.baselines.lawt import ENCODINGS, Vocabulary
from rangeformer.baselines.lawt.symbols import BOUNDARY, FIRST_DIMENSION, MINUS, NUM_SYMBOLS, PADDING
from rangeformer.baselines.lawt.vocabulary import pad

NAMED = pytest.mark.parametrize("name", ENCODINGS)
EXAMPLE = torch.tensor([[[3.14159, -0.05], [12.5, 0.0]]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("P10", "V2 V2 + 3 1 4 E-2 - 5 0 0 E-4 + 1 2 5 E-1 + 0 E0"),
        ("P1000", "V2 V2 + 314 E-2 - 500 E-4 + 125 E-1 + 0 E0"),
        ("B1999", "V2 V2 314 E-2 -500 E-4 125 E-1 0 E0"),
        ("FP15", "V2 V2 FP314/-2 FP-500/-4 FP125/-1 FP0/-9"),
    ],
)
def test_worked_example(name, expected):
    vocabulary = Vocabulary(name)
    tokens = vocabulary.write(EXAMPLE, vocabulary.input)
    assert " ".join(vocabulary.names(tokens[0])) == f"<boundary> {expected} <boundary>"
    read, well_formed = vocabulary.read(tokens, (2, 2), vocabulary.input)
    assert well_formed.all()
    torch.testing.assert_close(
        read, torch.tensor([[[3.14, -0.05], [12.5, 0.0]]], dtype=torch.float64), rtol=1e-14, atol=0
    )


@pytest.mark.parametrize(("name", "length"), [("P10", 127), ("P1000", 77), ("B1999", 52), ("FP15", 27)])
def test_lengths_of_five_by_five(name, length):
    vocabulary = Vocabulary(name)
    tokens = vocabulary.write(normal(3, 5, 5), vocabulary.input)
    assert tokens.shape[1] == length + 2 == vocabulary.length((5, 5), vocabulary.input)
    assert vocabulary.write(normal(3, 5, 5), vocabulary.input, "svd").shape[1] == length + 3
    assert vocabulary.length((5, 5), vocabulary.input, joint=True) == length + 3


@NAMED
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_matrices_with_zeros_anywhere_come_back(name, data):
    m, n = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    numbers = st.one_of(st.just(0.0), st.floats(-1e6, 1e6))
    rows = data.draw(st.lists(st.lists(numbers, min_size=m * n, max_size=m * n), min_size=1, max_size=3))
    matrices = torch.tensor(rows, dtype=torch.float64).view(-1, m, n)
    vocabulary = Vocabulary(name)
    tokens = vocabulary.write(matrices, vocabulary.output, "inversion")
    read, well_formed = vocabulary.read(tokens, (m, n), vocabulary.output, "inversion")
    assert well_formed.all()
    assert torch.equal(read, vocabulary.output.round_trip(matrices))
    assert torch.equal(vocabulary.write(read, vocabulary.output, "inversion"), tokens)


@NAMED
def test_reading_is_strict(name):
    vocabulary = Vocabulary(name)
    encoding = vocabulary.output
    good = vocabulary.write(normal(1, 2, 2).abs() + 1, encoding)
    last, start = good.shape[1] - 1, 3

    def changed(position: int, token: int) -> torch.Tensor:
        tokens = good.clone()
        tokens[0, position] = token
        return tokens

    bad = {
        "another shape": changed(1, FIRST_DIMENSION + 2),
        "no boundary": changed(0, PADDING),
        "a number cut short": good[:, : last - 1],
        "padding within": changed(start, PADDING),
        "end within": changed(last - 1, BOUNDARY),
        "a dimension within": changed(start, FIRST_DIMENSION),
        "below the vocabulary": changed(start, -1),
        "beyond the vocabulary": changed(last - 1, vocabulary.size),
        "nothing": good[:, :1],
    }
    for what, tokens in bad.items():
        read, well_formed = vocabulary.read(tokens, (2, 2), encoding)
        assert not well_formed.any(), what
        assert read.isnan().all(), what
    trailing = torch.cat([good[:, :last], good], 1)
    assert vocabulary.read(trailing, (2, 2), encoding)[1].all()
    assert vocabulary.read(good[:, :last], (2, 2), encoding)[1].all()
    assert not vocabulary.read(good, (2, 2), encoding, "svd")[1].any()
    asked = vocabulary.write(normal(1, 2, 2), encoding, "svd")
    assert vocabulary.read(asked, (2, 2), encoding, "svd")[1].all()
    assert not vocabulary.read(asked, (2, 2), encoding, "addition")[1].any()


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("P10", [0, 1, 2, 10 + 100]),  # a leading zero
        ("P10", [0, 10 + 101]),  # 0 E1
        ("P1000", [99, 1000 + 100]),
        ("P1000", [0, 1000 + 99]),
        ("B1999", [1099, 2001 + 100]),
        ("B1999", [0, 2001 + 100]),  # -1000 is in the vocabulary, and nothing writes it
    ],
)
def test_numbers_that_nothing_writes(name, own):
    vocabulary = Vocabulary(name)
    sign = [] if name == "B1999" else [MINUS - 1]
    tokens = [BOUNDARY, FIRST_DIMENSION, FIRST_DIMENSION, *sign, *(NUM_SYMBOLS + token for token in own), BOUNDARY]
    assert not vocabulary.read(torch.tensor([tokens]), (1, 1), vocabulary.input)[1].any()


def test_minus_zero_is_not_written():
    vocabulary = Vocabulary("P1000")
    tokens = vocabulary.write(torch.zeros(1, 1, 1), vocabulary.input)
    assert vocabulary.read(tokens, (1, 1), vocabulary.input)[1].all()
    tokens[0, 3] = MINUS
    assert not vocabulary.read(tokens, (1, 1), vocabulary.input)[1].any()


def test_padding_to_the_longest():
    padded = pad([torch.zeros(2, 3, dtype=torch.long), torch.zeros(1, 5, dtype=torch.long)])
    assert padded.tolist() == [[0, 0, 0, PADDING, PADDING]] * 2 + [[0] * 5]


def test_what_is_refused():
    with pytest.raises(ValueError, match="`output_encoding` must be one of"):
        Vocabulary("P10", "P100")
    vocabulary = Vocabulary("FP15")
    with pytest.raises(ValueError, match="1 to 100 rows and columns. Got 1 x 101"):
        vocabulary.write(torch.ones(1, 1, 101), vocabulary.input)
