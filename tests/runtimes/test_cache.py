"""Times on disk: kept, shared, and never trusted."""

import json

import pytest

from tuckertree.runtimes import LatencyCache, cache_folder

KEY = {"runtime": "torch", "input": ["float32", 1, 3]}
NUMBERS = {"seconds": 0.5, "median": 1.0, "low": 0.9, "high": 1.1}


def test_what_is_kept_is_found_again_by_an_equal_key(own_cache):
    LatencyCache().keep([(KEY, NUMBERS)])
    assert LatencyCache().get(dict(reversed(KEY.items()))) == NUMBERS
    assert LatencyCache().get({**KEY, "runtime": "openvino"}) is None
    assert [file.name for file in own_cache.parent.iterdir()] == ["latency.json"]


def test_what_a_busy_machine_has_left_uncertain_counts_as_missing():
    cache = LatencyCache()
    cache.keep([(KEY, {**NUMBERS, "low": 0.5, "high": 1.5})])
    assert cache.get(KEY) is None
    cache.keep([(KEY, NUMBERS)])
    assert cache.get(KEY) == NUMBERS


def test_what_others_have_added_since_stays():
    first, second = LatencyCache(), LatencyCache()
    first.keep([(KEY, NUMBERS)])
    second.keep([({**KEY, "threads": 2}, NUMBERS)])
    assert LatencyCache().get(KEY) == LatencyCache().get({**KEY, "threads": 2}) == NUMBERS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "[]",
        "{}",
        json.dumps({"format": 99, "entries": {json.dumps(KEY, sort_keys=True): NUMBERS}}),
        json.dumps({"format": 1, "entries": []}),
        json.dumps({"format": 1, "entries": {json.dumps(KEY, sort_keys=True): {**NUMBERS, "low": "x"}}}),
        json.dumps({"format": 1, "entries": {json.dumps(KEY, sort_keys=True): {**NUMBERS, "low": -1}}}),
        json.dumps({"format": 1, "entries": {json.dumps(KEY, sort_keys=True): {"seconds": 1}}}),
        '{"format": 1, "entries": {' + json.dumps(json.dumps(KEY, sort_keys=True)) + ": NaN}}",
    ],
)
def test_a_corrupt_file_counts_as_empty_and_is_written_anew(text, own_cache):
    own_cache.parent.mkdir()
    own_cache.write_text(text)
    cache = LatencyCache()
    assert cache.get(KEY) is None
    cache.keep([(KEY, NUMBERS)])
    assert LatencyCache().get(KEY) == NUMBERS


def test_bytes_that_are_no_text_count_as_empty(own_cache):
    own_cache.parent.mkdir()
    own_cache.write_bytes(b"\xff\xfe\x00")
    assert LatencyCache().get(KEY) is None


def test_a_cache_that_cannot_be_written_is_left_alone(tmp_path):
    (tmp_path / "file").touch()
    cache = LatencyCache(tmp_path / "file" / "latency.json")
    cache.keep([(KEY, NUMBERS)])
    assert cache.get(KEY) == NUMBERS


def test_the_folder_is_the_users(monkeypatch):
    monkeypatch.delenv("TUCKERTREE_CACHE")
    assert cache_folder().name == "tuckertree"
