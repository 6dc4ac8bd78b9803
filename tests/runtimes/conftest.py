"""No test reads or writes the user's own cache."""

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TUCKERTREE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "latency.json"
