"""Numbers as tokens: the documented vocabularies, the worked examples, and round trips of every finite float."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rangeformer.baselines.lawt.digits import rounded, significant
from rangeformer.baselines.lawt.encodings import ABSENT, ENCODINGS
from rangeformer.baselines.lawt.symbols import NAMES, NUM_SYMBOLS
from rangeformer.baselines.lawt.vocabulary import Vocabulary

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NAMED = pytest.mark.parametrize("name", ENCODINGS)


def values(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def written(name: str, number: float) -> str:
    encoding = ENCODINGS[name]()
    known = [*NAMES, *encoding.names()]
    return " ".join(known[token] for token in encoding.tokens(values(number))[0].tolist() if token != ABSENT)


@pytest.mark.parametrize(
    ("number", "p10", "p1000", "b1999", "fp15"),
    [
        (3.14159, "+ 3 1 4 E-2", "+ 314 E-2", "314 E-2", "FP314/-2"),
        (-6.02e23, "- 6 0 2 E21", "- 602 E21", "-602 E21", "FP -overflow"),
        (-0.05, "- 5 0 0 E-4", "- 500 E-4", "-500 E-4", "FP-500/-4"),
        (12.5, "+ 1 2 5 E-1", "+ 125 E-1", "125 E-1", "FP125/-1"),
        (0.0, "+ 0 E0", "+ 0 E0", "0 E0", "FP0/-9"),
        (-0.0, "+ 0 E0", "+ 0 E0", "0 E0", "FP0/-9"),
        (9.9999, "+ 1 0 0 E-1", "+ 100 E-1", "100 E-1", "FP100/-1"),  # carry
        (-9.9951, "- 1 0 0 E-1", "- 100 E-1", "-100 E-1", "FP-100/-1"),
        (9.9949, "+ 9 9 9 E-2", "+ 999 E-2", "999 E-2", "FP999/-2"),
        (123456.0, "+ 1 2 3 E3", "+ 123 E3", "123 E3", "FP123/3"),
        (-0.0005678, "- 5 6 8 E-6", "- 568 E-6", "-568 E-6", "FP-568/-6"),
        (1e-200, "+ 0 E0", "+ 0 E0", "0 E0", "FP0/-9"),
        (2.6e-9, "+ 2 6 0 E-11", "+ 260 E-11", "260 E-11", "FP3/-9"),  # coarse steps below 1e-7
        (-9.96e-8, "- 9 9 6 E-10", "- 996 E-10", "-996 E-10", "FP-100/-9"),
        (9.99e8, "+ 9 9 9 E6", "+ 999 E6", "999 E6", "FP999/6"),
        (9.996e8, "+ 1 0 0 E7", "+ 100 E7", "100 E7", "FP overflow"),
    ],
)
def test_worked_examples(number, p10, p1000, b1999, fp15):
    expected = dict(zip(("P10", "P1000", "B1999", "FP15"), (p10, p1000, b1999, fp15), strict=True))
    assert {name: written(name, number) for name in ENCODINGS} == expected


@pytest.mark.parametrize(
    ("names", "own", "size"),
    [
        (("P10",), 211, 338),
        (("P1000",), 1201, 1328),
        (("B1999",), 2202, 2329),
        (("FP15",), 29_001, 29_128),
        (("FP15", "P1000"), 29_001, 30_329),
    ],
)
def test_vocabularies_have_the_documented_sizes(names, own, size):
    vocabulary = Vocabulary(*names)
    assert vocabulary.input.num_tokens == own
    assert vocabulary.size == size


@NAMED
def test_the_tokens_of_an_encoding_are_distinct(name):
    encoding = ENCODINGS[name]()
    assert len(encoding.names()) == len(set(encoding.names())) == encoding.num_tokens
    assert len(set(NAMES)) == len(NAMES) == NUM_SYMBOLS == 127
    # letters are not shared with the common symbols either, but for the signs that P10 and P1000 use on purpose
    assert not set(encoding.names()) & set(NAMES)


@pytest.mark.parametrize("first", ENCODINGS)
@pytest.mark.parametrize("second", ENCODINGS)
def test_blocks_of_two_encodings_are_disjoint(first, second):
    vocabulary = Vocabulary(first, second)
    blocks = [
        range(encoding.first, encoding.first + encoding.num_tokens)
        for encoding in (vocabulary.input, vocabulary.output)
    ]
    assert blocks[0].start == NUM_SYMBOLS
    assert blocks[1].stop == vocabulary.size
    assert (blocks[0] == blocks[1]) if first == second else (blocks[0].stop == blocks[1].start)


@given(FINITE)
@example(9.9995)
@example(9.995)
@example(0.9995)
@example(1.125)
@example(1.375)
@example(5e-324)
@example(1.7976931348623157e308)
@settings(max_examples=300, deadline=None)
def test_three_digits_are_those_of_python(number):
    mantissa, exponent = (int(x) for x in significant(values(number)))
    if abs(number) < 1e-250:
        assert (mantissa, exponent) == (0, 0)
    else:
        assert float(f"{mantissa}e{exponent}") == float(f"{number:.2e}")
        assert 100 <= abs(mantissa) <= 999


@given(st.integers(-999_999, 999_999), st.integers(-30, 30), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_decimal_ties_are_rounded_as_the_binary_number_says(mantissa, exponent, digits):
    number = float(f"{mantissa}e{exponent}")
    assert rounded(values(number), digits).item() == pytest.approx(float(f"{number:.{digits - 1}e}"), rel=1e-15, abs=0)


@NAMED
@given(number=FINITE)
@example(number=9.9995)
@example(number=-1e9)
@example(number=9.995e102)
@example(number=-9.994999e102)
@example(number=1e-98)
@example(number=9.99e-99)
@settings(max_examples=300, deadline=None)
def test_round_trip_of_every_finite_float(name, number):
    encoding = ENCODINGS[name]()
    size = abs(number)
    if name != "FP15" and float(f"{size:.2e}") >= 1e103:
        with pytest.raises(ValueError, match="below 9.995e102"):
            encoding.tokens(values(number))
        return
    tokens = encoding.tokens(values(number))
    found, used = encoding.numbers(tokens)
    found = found.item()
    assert int(used) == int((tokens != ABSENT).sum())
    assert encoding.tokens(values(found)).tolist() == tokens.tolist()  # what is written is read as itself
    if name == "FP15":
        if float(f"{size:.2e}") >= 1e9:
            assert found == math.copysign(1e9, number)
        else:
            assert abs(found - number) <= max(0.5e-9, 0.5e-2 * size) * (1 + 1e-12)
    elif float(f"{size:.2e}") < 1e-98:
        assert found == 0
    else:
        assert found == pytest.approx(float(f"{number:.2e}"), rel=1e-14)


@NAMED
def test_order_is_kept(name):
    numbers = torch.linspace(-30, 30, 1001, dtype=torch.float64)
    assert (ENCODINGS[name]().round_trip(numbers).diff() >= 0).all()


@NAMED
def test_batch_is_loop_and_dtype_is_free(name):
    encoding = ENCODINGS[name]()
    numbers = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 10
    one_by_one = [encoding.tokens(number) for number in numbers.flatten()]
    assert torch.equal(encoding.tokens(numbers).flatten(0, 1), torch.stack(one_by_one))
    assert encoding.round_trip(numbers).dtype == torch.float64


@NAMED
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_no_token_stands_for(name, number):
    with pytest.raises(ValueError, match="must be finite"):
        ENCODINGS[name]().tokens(values(1.0, number))


def test_number_of_digits():
    with pytest.raises(ValueError, match="in 1..7. Got 0"):
        significant(values(1.0), 0)
