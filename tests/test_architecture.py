"""The rules of the design that a program can check: layers, sizes, imports, docstrings."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("frontend", "ir", "passes", "codegen", "runtime")
ALLOWED = {  # layer -> the layers that it may import
    "ir": {"ir"},
    "passes": {"passes", "ir"},
    "codegen": {"codegen", "ir"},
    "runtime": {"runtime", "codegen", "passes", "ir"},
    "frontend": {"frontend", "runtime", "passes", "ir"},
}
LAZY = ("networkx", "numba", "rich", "safetensors", "ml_dtypes", "platformdirs")
MAX_FILE, MAX_FUNCTION = 500, 70


@cache
def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, also inside of functions, and the line."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno} imports relatively"
            yield node.module or "", node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def layer_of(module: str) -> str | None:
    """The layer of a module of einkorn."""
    parts = module.split(".")
    if parts[0] != "einkorn":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "frontend"


def layer_imports(path: Path) -> Iterator[tuple[str, int]]:
    """The layers that a file imports; `from einkorn import ir` names a layer, too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module == "einkorn":
            modules = [f"einkorn.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        for module in modules:
            layer = layer_of(module)
            if layer is not None:
                yield layer, node.lineno


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    for path in sources(layer):
        for target, line in layer_imports(path):
            assert target in ALLOWED[layer], f"{name(path)}:{line} imports {target}"


def test_only_codegen_and_runtime_import_the_compilers() -> None:
    for path in sources("frontend", "ir", "passes"):
        for module, line in imports(path):
            assert module.split(".")[0] not in ("llvmlite", "numba"), f"{name(path)}:{line}"


def test_no_shipped_code_imports_tests_or_examples() -> None:
    known = {path.stem for path in sources("tests", "examples")}
    for path in sources(*LAYERS):
        for module, line in imports(path):
            assert module.split(".")[0] not in known, f"{name(path)}:{line} imports {module}"


def test_packages_are_those_of_the_tree() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = config["tool"]["setuptools"]
    found = set()
    for package, folder in setuptools["package-dir"].items():
        for path in sources(folder):
            inner = path.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *inner)))
            assert (path.parent / "__init__.py").exists(), f"{name(path.parent)} is no package"
    assert sorted(setuptools["packages"]) == sorted(found)
    assert set(setuptools["package-dir"].values()) == set(LAYERS)


def test_no_file_hides_a_name_of_its_package() -> None:
    """Importing a submodule sets its name in the package, over a function of that name."""
    for path in sources("frontend"):
        if path.name != "__init__.py":
            continue
        name = ".".join(("einkorn", *path.parent.relative_to(ROOT / "frontend").parts))
        package = importlib.import_module(name)
        for node in tree(path).body:
            if isinstance(node, ast.ImportFrom):
                source = importlib.import_module(str(node.module))
                for alias in node.names:
                    shown = alias.asname or alias.name
                    assert getattr(package, shown) is getattr(source, alias.name), (name, shown)


NAMESPACES = "callbacks data fft initializers linalg metrics nn optim random regularizers special"


@pytest.mark.parametrize("name", ["einkorn", *(f"einkorn.{x}" for x in NAMESPACES.split())])
def test_completion_offers_public_names_alone(name: str) -> None:
    namespace = importlib.import_module(name)
    offered = {x for x in dir(namespace) if not x.startswith("_")}
    assert offered == {x for x in namespace.__all__ if not x.startswith("_")}
    assert all(hasattr(namespace, x) for x in namespace.__all__)


def test_files_are_short() -> None:
    for path in sources(*LAYERS, "tests", "examples", "benchmarks"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MAX_FILE, f"{name(path)} has {lines} lines"


def test_functions_are_short() -> None:
    for path in sources(*LAYERS):
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                where = f"{name(path)}:{node.lineno} {node.name} has {lines} lines"
                assert lines <= MAX_FUNCTION, where


def test_importing_einkorn_loads_little() -> None:
    code = f"import sys\nimport einkorn\nprint([name for name in {LAZY} if name in sys.modules])\n"
    run = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_only_the_settings_read_the_environment() -> None:
    for path in sources(*LAYERS):
        if name(path) == "runtime/settings.py":
            continue
        for node in ast.walk(tree(path)):
            attribute = node.attr if isinstance(node, ast.Attribute) else ""
            assert attribute not in ("environ", "environb", "getenv"), (
                f"{name(path)}:{node.lineno} reads the environment"
            )


def test_settings_are_at_most_ten_and_documented() -> None:
    path = ROOT / "runtime/settings.py"
    found = set(re.findall(r"EINKORN_[A-Z_]+", ast.get_docstring(tree(path)) or ""))
    from einkorn.runtime import settings

    assert found == {f"EINKORN_{field.upper()}" for field in settings._READERS}
    assert len(found) <= 10


def public(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef]:
    """Public functions and classes at the top of a module."""
    for node in tree(path).body:
        is_definition = isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
        if is_definition and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("layer", LAYERS)
def test_modules_say_what_they_are_for(layer: str) -> None:
    for path in sources(layer):
        first = (ast.get_docstring(tree(path)) or "").split("\n")[0]
        assert first.endswith((".", ":")), name(path)


OBVIOUS = {  # one formula each, said by name and types
    "passes/build.py": "builders named after their op",
    "ir/shape_rules.py": "rules named after what they infer",
    "ir/numpy_rules.py": "references named after their op",
    "passes/gradients": "rules that their table names",
    "codegen/llvm/mathlib": "functions named after what they compute",
}


@pytest.mark.parametrize("layer", LAYERS)
def test_public_functions_and_classes_have_docstrings(layer: str) -> None:
    for path in sources(layer):
        if any(name(path).startswith(prefix) for prefix in OBVIOUS):
            continue
        for node in public(path):
            assert ast.get_docstring(node), f"{name(path)}:{node.lineno} {node.name}"


def test_docstrings_open_with_one_line() -> None:
    for path in sources(*LAYERS):
        for node in public(path):
            doc = ast.get_docstring(node)
            if doc and "\n" in doc:
                assert doc.split("\n")[1] == "", f"{name(path)}:{node.lineno} {node.name}"


def test_nothing_prints() -> None:
    for path in sources(*LAYERS):
        for node in ast.walk(tree(path)):
            call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            assert not (call and node.func.id == "print"), f"{name(path)}:{node.lineno} prints"


def test_no_code_is_loaded_from_files() -> None:
    """A file of weights or a cache can never run code.

    Source that a function writes and runs at once is made of names of the user's own code.
    """
    generates = "frontend/python_places.py"
    for path in sources(*LAYERS):
        for module, line in imports(path):
            first = module.split(".")[0]
            assert first not in ("pickle", "marshal", "shelve", "dill"), f"{name(path)}:{line}"
        for node in ast.walk(tree(path)):
            call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if name(path) != generates:
                assert not (call and node.func.id in ("eval", "exec")), (
                    f"{name(path)}:{node.lineno}"
                )


def test_every_todo_has_an_issue() -> None:
    for path in sources(*LAYERS):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            marked = re.search(r"#.*\b(TODO|FIXME|XXX)\b(?!\(#\d+\))", line)
            assert not marked, f"{name(path)}:{number}"
