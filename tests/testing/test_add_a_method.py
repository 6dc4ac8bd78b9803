"""docs/add-a-method.md is run as it stands."""

import re
from pathlib import Path

import pytest

import tuckertree.core.layers.methods.method as registry

PAGE = Path(__file__).parents[2] / "docs" / "add-a-method.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def example(monkeypatch):
    """The names that the page defines; what it registers is forgotten afterwards."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    names = {}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_example_compresses_and_keeps_the_contract(example):
    assert "separable" in {layer.method for layer in example["result"].plan.layers}
    assert "separable" in str(example["result"])
    contract = example["TestSeparable"]()
    tests = [name for name in dir(contract) if name.startswith("test_")]
    assert len(tests) > 9
    for name in tests:
        getattr(contract, name)()


def test_the_method_is_under_sixty_lines():
    assert len(BLOCKS[0].splitlines()) < 60
