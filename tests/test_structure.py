"""Files and functions stay short enough to read, and every module of `rangeformer` has a test that names it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rangeformer", "gp_integration", "sketching", "experiments")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
MOST_LINES, MOST_CODE = 300, 60
# a longer file, and why it is one
LONGER_FILES = {
    "sketching/estimators.py": "two scikit-learn estimators whose parameters scikit-learn wants spelled out in each",
}


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """Lines of the body that hold code: no docstring, no blank line, no comment."""
    body = function.body
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        body = body[1:]
    if not body:
        return 0
    inside = lines[body[0].lineno - 1 : body[-1].end_lineno]
    return sum(1 for line in inside if line.strip() and not line.strip().startswith("#"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    lines = path.read_text().splitlines()
    name = str(path.relative_to(ROOT))
    assert len(lines) <= MOST_LINES or name in LONGER_FILES
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            reason = lines[first - 2].strip() if first > 1 else ""
            length = code_lines(node, lines)
            assert length <= MOST_CODE or reason.startswith("# long: "), f"{node.name}: {length} lines of code"


def test_exceptions_are_needed():
    for name in LONGER_FILES:
        assert len((ROOT / name).read_text().splitlines()) > MOST_LINES, f"{name} needs no exception"


def test_a_long_function_would_be_noticed():
    source = "def f():\n    '''Words.'''\n" + "    # a comment\n    x = 1\n" * 61
    (function,) = ast.parse(source).body
    assert code_lines(function, source.splitlines()) == 61


def public_names(path: Path) -> set[str]:
    """Functions, classes and constants that a module offers."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_every_module_of_the_core_is_named_by_a_test():
    tests = {path: path.read_text() for path in (ROOT / "tests").rglob("*.py") if path.name != Path(__file__).name}
    words = set(re.findall(r"\w+", "\n".join(tests.values())))
    own = {path.stem.removeprefix("test_") for path in tests}
    missing = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "rangeformer").rglob("*.py"))
        # test_imports imports the deprecated modules by their names
        if not path.stem.startswith("__")
        and path.name not in ("structured.py", "checkpoint.py")
        and path.stem not in own
        and not public_names(path) & words
    ]
    assert not missing
