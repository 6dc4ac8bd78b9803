"""Plain data into dataclasses, strictly, and files of JSON."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree._base.reading import read_as, read_json


@dataclass(frozen=True)
class Inner:
    share: float
    pair: tuple[int, int]


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    rows: tuple[Inner, ...] = ()
    sizes: Mapping[str, int] | None = None
    on: bool = False


WHOLE = st.integers(1 - 2**63, 2**63 - 1)
INNER = st.builds(Inner, st.floats(allow_nan=False, allow_infinity=False), st.tuples(WHOLE, WHOLE))
OUTER = st.builds(
    Outer,
    st.text(),
    INNER,
    st.lists(INNER, max_size=3).map(tuple),
    st.none() | st.dictionaries(st.text(), WHOLE),
    st.booleans(),
)
WRONG = [None, True, "1", 1.5, float("nan"), float("inf"), [], [1], {}, {"share": 1}]


@given(OUTER)
def test_what_was_written_is_read_back(outer):
    assert read_as(Outer, json.loads(json.dumps(asdict(outer)))) == outer


@given(st.integers(min_value=2**63) | st.just(10**400), st.booleans())
def test_whole_numbers_that_nothing_can_be_divided_by_are_refused(value, negative):
    with pytest.raises(UsageError, match=r"inner\.pair\.1: must be less than 2\^63"):
        read_as(Inner, {"share": 1, "pair": [1, -value if negative else value]}, "inner")
    with pytest.raises(UsageError, match="finite"):
        read_as(Inner, {"share": value, "pair": [1, 2]})


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize(
    ("key", "right"),
    [("name", str), ("inner", ()), ("inner.pair", ()), ("inner.share", float), ("rows", list), ("on", bool)],
)
def test_a_value_of_another_type_is_refused_by_its_key(key, right, value):
    data = {"name": "a", "inner": {"share": 1, "pair": [1, 2]}}
    *parents, last = key.split(".")
    place = data["inner"] if parents else data
    place[last] = value
    if right and isinstance(value, right) and value == value and value not in (float("inf"), [1]):
        return
    with pytest.raises(UsageError, match=f"{key}|{last}"):
        read_as(Outer, data)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 10_000])
def test_what_is_no_json_is_one_line_with_the_file(content, tmp_path):
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(TuckertreeError, match=r"^\S*plan\.json cannot be read: [^\n]+$"):
        read_json(tmp_path / "plan.json")


def test_folders_and_what_is_not_there_are_refused_too(tmp_path):
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "no.json", "No such file")):
        with pytest.raises(TuckertreeError, match=message):
            read_json(path)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")
def test_a_pipe_is_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "p.json")
    with pytest.raises(TuckertreeError, match="is a pipe or device"):
        read_json(tmp_path / "p.json")
