"""The field's words: names, docstrings and pages use the terms that numerical analysts and statisticians use."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rangeformer", "gp_integration", "sketching")
# what this project once said -> what the field says
WORDS = {
    r"looks? first|first look": "pilot sample, data-aware sketch",
    r"thin products?": "left sketch",
    r"\blifts?\b": "random features",
    r"\bleans? on\b": "conditions on",
    r"(galerkin|pure|looped) members?": "model",
    r"\b(dies|died)\b|\bdead\b": "deflated, rank-deficient",
    r"\bsettled\b": "converged",
    r"(?<!power )(?<!semicircle )(?<!power-)\blaws?\b": "distribution",
    r"\bledgers?\b|\bcurrenc(y|ies)\b": "cost counts",
    r"left the road|column rests": "diverged, frozen",
    r"\bknobs?\b|\bsights?\b": "per-matrix parameters, summary statistics",
    r"\brehears(e|ed|es|al|als)\b": "validation of the noise level",
    r"\bguess(es|ed)?\b": "candidate, initial iterate",
    r"\brungs?\b|ablation ladder": "ablation",
    r"passes are dear": "passes are expensive",
    r"rangeformer-direct": "learned-krylov",
}
FORBIDDEN = re.compile("|".join(f"(?:{pattern})" for pattern in WORDS), flags=re.IGNORECASE)
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def without_quotations(text: str) -> str:
    """Without code, links, file names and rendered tables: names on disk keep what committed results call them."""
    for pattern in (r"```.*?```", r"<!-- (table|distributions).*?<!-- end of \w+ -->", r"`[^`]*`", r"\]\([^)]*\)"):
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return text


def former_names(docstring: str) -> str:
    """Without the lines that document a deprecated name."""
    return re.sub(r"^.*deprecated.*$", "", docstring, flags=re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_use_the_words_of_the_field(path):
    found = FORBIDDEN.findall(without_quotations(path.read_text()))
    assert not FORBIDDEN.search(without_quotations(path.read_text())), found


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_lines_of_pages_are_at_most_120_characters(path):
    # but for code, pictures and the rows of tables, which cannot be wrapped
    prose = re.sub(r"^```.*?^```$|^!\[.*$|^\|.*$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert [line for line in prose.splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_use_the_words_of_the_field(path):
    if path.name in ("structured.py", "checkpoint.py") and path.parent.name == "rangeformer":
        pytest.skip("a deprecated module has to name itself")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            words = without_quotations(former_names(ast.get_docstring(node) or ""))
            # fields of configurations and cards keep the names that files on disk have
            words = re.sub(r"^\s*(laws?|validation_laws|lift): ", "", words, flags=re.MULTILINE)
            match = FORBIDDEN.search(words)
            assert match is None, f"{getattr(node, 'name', path.stem)}: {match[0] if match else ''}"


def test_public_names_use_the_words_of_the_field():
    import gp_integration
    import rangeformer
    import sketching

    for package in (rangeformer, gp_integration, sketching):
        for name in dir(package):
            words = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name)
            assert not FORBIDDEN.search(words), f"{package.__name__}.{name}"


def test_a_word_of_the_old_kind_would_be_found():
    for sentence in ("A thin product first.", "The law of a row.", "It leans on three rows.", "The Galerkin member."):
        assert FORBIDDEN.search(sentence)
    assert not FORBIDDEN.search("A power law of the eigenvalues.")
