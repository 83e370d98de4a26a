"""The tokens every vocabulary begins with: 2 special, 20 for tasks, 5 common symbols, 100 dimensions."""

BOUNDARY = 0
"""Start and end of every sequence."""
PADDING = 1
TASK_NAMES = (
    "transposition",
    "addition",
    "matrix_vector",
    "matrix_product",
    "eigenvalues",
    "eigenvectors",
    "inversion",
    "singular_values",
    "svd",
)
_FIRST_TASK, _NUM_TASK_TOKENS = 2, 20
TASK_TOKENS = {name: _FIRST_TASK + index for index, name in enumerate(TASK_NAMES)}
"""Tokens that say which task is asked, where several are trained jointly; the rest of the 20 is unused."""
_COMMON = ("+", "-", "10^", ".", "|")
PLUS, MINUS = (_FIRST_TASK + _NUM_TASK_TOKENS + index for index in range(2))
MAX_DIMENSION = 100
FIRST_DIMENSION = _FIRST_TASK + _NUM_TASK_TOKENS + len(_COMMON)
"""Of V1; V<k> is k - 1 further on."""
NUM_SYMBOLS = FIRST_DIMENSION + MAX_DIMENSION

_UNUSED = tuple(f"<unused {index}>" for index in range(_NUM_TASK_TOKENS - len(TASK_NAMES)))
NAMES = (
    "<boundary>",
    "<padding>",
    *(f"<{name}>" for name in TASK_NAMES),
    *_UNUSED,
    *_COMMON,
    *(f"V{size}" for size in range(1, MAX_DIMENSION + 1)),
)
"""What each of them is called, by its number."""
