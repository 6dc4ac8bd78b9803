"""Which package may import which, and what the core may import from outside."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tuckertree

SOURCE = Path(tuckertree.__file__).parent
# Each package imports only those above it.
PACKAGES = [
    ["_base"],
    ["core"],
    ["measure"],
    ["planning"],
    ["network"],
    ["calibration", "runtimes"],
    ["latency"],
    ["io"],
    ["compression"],
    ["onnx_models"],
    ["testing"],
    ["tools"],
    ["api"],
    ["__main__"],
]
# And so within a package.
WITHIN = {
    "core": [["decomposition"], ["layers"]],
    "tools": [
        ["assets"],
        ["data"],
        ["models", "onnx_images", "settings"],
        ["training"],
        ["opening", "demo"],
        ["bench", "recipes"],
        ["comparison"],
        ["html_report"],
        ["cli"],
    ],
}
CORE = ("core", "measure", "planning", "network", "calibration", "latency", "compression")
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


def parts(path):
    return path.relative_to(SOURCE).with_suffix("").parts


FILES = [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_package_imports_only_packages_above_it(path):
    own = parts(path)
    for module in imports(path):
        root, *theirs = module.split(".")
        if root == "tuckertree" and theirs:
            is_above(PACKAGES, own[0], theirs[0], module)
            if own[0] == theirs[0] in WITHIN and len(own) > 1 < len(theirs) + 1:
                is_above(WITHIN[own[0]], own[1], theirs[1], module)


def is_above(order, own, other, module):
    floor = {name: number for number, names in enumerate(order) for name in names}
    assert own == other or floor[other] < floor[own], module


@pytest.mark.parametrize(
    ("document", "line"),
    [("docs/architecture.md", r"\| `(\w+)` \| "), ("CONTRIBUTING.md", r" {4}(\w+) {2,}")],
)
def test_the_documents_list_the_same_packages_in_the_same_order(document, line):
    text = (Path(__file__).parents[1] / document).read_text(encoding="utf-8")
    section = text.partition("## The packages")[2].partition("\n## ")[0]
    listed = re.findall(rf"(?m)^{line}", section)
    assert listed == [name for names in PACKAGES for name in names]
    assert {path.name.removesuffix(".py") for path in SOURCE.iterdir() if path.suffix in ("", ".py")} - {
        "__init__",
        "__pycache__",
    } == set(listed)


@pytest.mark.parametrize("name", CORE)
def test_the_core_needs_torch_numpy_and_safetensors_alone(name):
    files = [path for path in FILES if parts(path)[0] == name]
    assert files
    for path in files:
        assert {module.split(".")[0] for module in imports(path)} <= ALLOWED, path


def test_importing_the_library_brings_in_no_extra():
    heavy = "'torchvision', 'timm', 'pyarrow', 'PIL', 'lightning', 'datasets', 'onnx', 'onnxruntime', 'openvino', 'huggingface_hub'"
    code = f"import sys, tuckertree; print({{{heavy}}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
