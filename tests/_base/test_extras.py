import sys

import pytest

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.extras import require_extra


def test_returns_the_module() -> None:
    assert require_extra("json", extra="vision") is sys.modules["json"]


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_absent_package_names_the_extra(module: str) -> None:
    with pytest.raises(
        TuckertreeError, match=r"no_such_package.*is not installed.*pip install '\.\[vision\]'"
    ):
        require_extra(module, extra="vision")


def test_broken_package_gives_the_cause(tmp_path, monkeypatch) -> None:
    (tmp_path / "broken_package.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TuckertreeError, match=r"cannot be imported \(No module named 'no_such_dependency'\)"):
        require_extra("broken_package", extra="vision")
