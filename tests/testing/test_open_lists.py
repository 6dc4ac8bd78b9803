"""What is registered is asked what it is able to do; nothing asks for it by name."""

import ast
from pathlib import Path

import tuckertree
from tuckertree.compression.objectives import OBJECTIVES
from tuckertree.runtimes import runtimes

SOURCE = Path(tuckertree.__file__).parent
TENSORS = {"weight", "outputs"}  # what parameters and sides of layers are called, too


def test_no_name_of_a_runtime_or_an_objective_is_compared_with():
    names = {*runtimes(), *OBJECTIVES} - TENSORS
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            compared = ast.walk(node) if isinstance(node, ast.Compare | ast.MatchValue) else ()
            found = {part.value for part in compared if isinstance(part, ast.Constant)} & names
            assert not found, f"{path}:{node.lineno} asks for {found}"
