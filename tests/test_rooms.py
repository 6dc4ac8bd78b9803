"""The plan of the house: which room may import which, and what the core may import from outside."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tuckertree

SOURCE = Path(tuckertree.__file__).parent
# Each room imports only those above it.
ROOMS = [
    ["_version", "errors", "names", "progress", "assets"],
    ["extras"],
    ["decomposition"],
    ["measure", "layers"],
    ["planning"],
    ["surgery", "probing"],
    ["calibration", "formats", "report"],
    ["runtimes"],
    ["export"],
    ["objectives", "latency"],
    ["compression"],
    ["data"],
    ["models"],
    ["training", "onnx_models"],
    ["opening", "demo", "api"],
    ["bench", "recipes"],
    ["cli"],
    ["__main__"],
]
CORE = (
    "decomposition",
    "measure",
    "layers",
    "planning",
    "surgery",
    "probing",
    "calibration",
    "formats",
    "objectives",
    "latency",
    "compression",
)
ALLOWED = {"torch", "numpy", "safetensors", "tuckertree"} | set(sys.stdlib_module_names)


def imports(path):
    """Modules that a file imports at run time (not for types alone), and whether inside a function."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def room(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_rooms_above_it(path):
    floor = {name: number for number, names in enumerate(ROOMS) for name in names}
    own = room(path)
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "tuckertree" and len(parts) > 1 and parts[1] != own:
            assert floor[parts[1]] < floor[own] or {own, parts[1]} <= {"measure", "layers"}, module


@pytest.mark.parametrize("name", CORE)
def test_the_core_needs_torch_numpy_and_safetensors_alone(name):
    files = [path for path in FILES if room(path) == name]
    assert files
    for path in files:
        assert {module.split(".")[0] for module in imports(path)} <= ALLOWED, path


def test_importing_the_library_brings_in_no_extra():
    heavy = (
        "'torchvision', 'timm', 'pyarrow', 'PIL', 'lightning', 'datasets', 'onnx', 'onnxruntime', 'openvino'"
    )
    code = f"import sys, tuckertree; print({{{heavy}}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
