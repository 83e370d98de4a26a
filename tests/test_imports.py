"""The packages depend on each other in one direction, and importing them is cheap, quiet and free of side effects."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rangeformer", "gp_integration", "sketching", "experiments")
ALLOWED = {
    "rangeformer": set(),
    "sketching": {"rangeformer"},
    "gp_integration": {"rangeformer"},
    "experiments": {"rangeformer", "gp_integration", "sketching"},
}
# what `rangeformer` may load, beside the standard library; safetensors only when weights are read
HEAVY = (
    "gpytorch",
    "linear_operator",
    "botorch",
    "jaxtyping",
    "safetensors",
    "matplotlib",
    "rich",
    "pandas",
    "sklearn",
    "dask",
)


def imported_modules(path: Path) -> set[str]:
    """Every module that is imported anywhere in a file, also inside functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            modules |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def in_fresh_process(code: str, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_is_below_them(package):
    for name, path in SOURCES.items():
        if name.split(".")[0] != package:
            continue
        others = {module.split(".")[0] for module in imported_modules(path)} & set(PACKAGES) - {package}
        assert others <= ALLOWED[package], f"{name} imports {others - ALLOWED[package]}"


def test_modules_form_no_cycle():
    # a package's `__init__` gathers its modules, so an edge to the package itself is followed only from outside
    graph = {
        name: {module for module in imported_modules(path) if module in SOURCES} - {name, name.split(".")[0]}
        for name, path in SOURCES.items()
    }
    done, active = set(), []

    def visit(name: str) -> None:
        assert name not in active, " -> ".join([*active[active.index(name) :], name])
        if name in done:
            return
        active.append(name)
        for below in sorted(graph[name]):
            visit(below)
        done.add(active.pop())

    for name in graph:
        visit(name)


@pytest.mark.parametrize("package", ["rangeformer", "sketching"])
def test_nothing_is_loaded_but_torch_numpy_and_scipy(package):
    code = f"import json, sys, {package}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    loaded = set(json.loads(in_fresh_process(code).stdout))
    assert package in loaded
    assert not loaded & ({*HEAVY, *PACKAGES} - {package, *ALLOWED[package]})


# floors of `rangeformer`, from the ground up; research and training stand apart from what a product needs
PRODUCT = ("operators", "krylov", "preconditioners", "solvers", "drivers")
APART = ("baselines", "pretrain", "distributions")


@pytest.mark.parametrize("floor", PRODUCT)
def test_the_product_imports_no_research(floor):
    for name, path in SOURCES.items():
        if name.startswith(f"rangeformer.{floor}."):
            found = {module for module in imported_modules(path) if module.startswith("rangeformer.")}
            assert not {module for module in found if module.split(".")[1] in APART}, name


def test_drivers_import_no_driver():
    for name, path in SOURCES.items():
        if name.startswith("rangeformer.drivers."):
            others = {module for module in imported_modules(path) if module.startswith("rangeformer.drivers.")}
            assert not others, f"{name} imports {others}"


def test_algorithms_know_no_solver_and_solvers_no_driver():
    for name, path in SOURCES.items():
        modules = imported_modules(path)
        if name.startswith("rangeformer.krylov."):
            assert not {m for m in modules if m.startswith(("rangeformer.solvers", "rangeformer.drivers"))}, name
        if name.startswith(("rangeformer.solvers.", "rangeformer.preconditioners.")):
            assert not {m for m in modules if m.startswith("rangeformer.drivers")}, name


def test_importing_rangeformer_loads_no_research():
    code = "import json, sys, rangeformer; print(json.dumps([m for m in sys.modules if m.startswith('rangeformer.')]))"
    loaded = {module.split(".")[1] for module in json.loads(in_fresh_process(code).stdout)}
    assert not loaded & set(APART)
    assert set(PRODUCT) <= loaded


@pytest.mark.parametrize(("old", "new"), [("checkpoint", "models.checkpoint"), ("structured", "distributions")])
def test_old_places_say_where_things_are_now(old, new):
    code = f"import rangeformer.{old} as old; assert callable(old.load) if '{old}' == 'checkpoint' else old.LAWS"
    shown = in_fresh_process(code, "-W", "always::DeprecationWarning").stderr
    assert f"`rangeformer.{old}` is now `rangeformer.{new}`" in shown


@pytest.mark.parametrize("package", ["rangeformer", "sketching"])
def test_importing_warns_about_nothing(package):
    assert in_fresh_process(f"import {package}", "-W", "error").stderr == ""


def test_gp_integration_adds_no_warning_of_its_own():
    # what gpytorch warns about at its own import is not ours to judge
    quiet_gpytorch = "import warnings; warnings.simplefilter('ignore'); import gpytorch; "
    assert in_fresh_process(quiet_gpytorch + "warnings.simplefilter('error'); import gp_integration").stderr == ""


def test_rangeformer_adds_little_to_the_import_of_its_dependencies():
    # CPU time, not wall time, and the best of five, so that a busy machine does not fail the test
    # scipy.sparse alone takes 0.2 s on a slow machine, which is not ours to judge
    code = (
        "import time, torch, scipy.sparse.linalg; t = time.process_time(); import rangeformer; "
        "print(time.process_time() - t)"
    )
    assert min(float(in_fresh_process(code).stdout) for _ in range(5)) < 0.3
