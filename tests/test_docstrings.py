"""The examples in docstrings run, and whatever is offered has one."""

import ast
import doctest
from pathlib import Path

import pytest
import torch

import tuckertree

SOURCE = Path(tuckertree.__file__).parent
OFFERED = [name for name in tuckertree.__all__ if callable(getattr(tuckertree, name))]
NEEDED = {
    "tt.export(": ("onnx", "onnxscript", "onnxruntime"),
    "tt.finetune(": ("lightning",),
    "tt.train(": ("lightning",),
}
PARSER = doctest.DocTestParser()


def examples():
    """The docstrings of the package that hold examples; read, not imported, so that none is missed."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if ">>>" in text else ():
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                docstring = ast.get_docstring(node)
                if docstring and PARSER.get_examples(docstring):
                    name, line = getattr(node, "name", "module"), node.body[0].lineno - 1
                    yield pytest.param(docstring, name, path, line, id=f"{path.relative_to(SOURCE)}:{name}")


@pytest.mark.parametrize(("docstring", "name", "path", "line"), list(examples()))
def test_an_example_prints_what_it_says(docstring, name, path, line):
    for package in {package for call in NEEDED if call in docstring for package in NEEDED[call]}:
        pytest.importorskip(package)
    torch.manual_seed(0)
    test = PARSER.get_doctest(docstring, {}, name, str(path), line)
    wrong = []
    doctest.DocTestRunner(verbose=False).run(test, out=wrong.append)
    assert not wrong, "".join(wrong)


@pytest.mark.parametrize("name", OFFERED)
def test_what_is_offered_has_an_example(name):
    assert PARSER.get_examples(getattr(tuckertree, name).__doc__ or "")
