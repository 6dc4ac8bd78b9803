"""Work in processes of our own."""

import os
import time
from contextlib import suppress

import pytest

from tests.tools.comparison.cases import square, wait, where
from tuckertree.tools.comparison.processes import Broken, in_processes


def test_results_come_with_what_they_are_of_and_one_that_breaks_does_not_end_the_others():
    found = dict(in_processes(square, [1, 13, 14, 15], jobs=2))
    assert found[1] == 1
    assert found[13] == Broken("thirteen")
    assert found[14] == Broken("ZeroDivisionError: fourteen")
    assert "its process ended without a result" in found[15].reason


def test_a_process_imports_nothing_from_the_working_folder(tmp_path, monkeypatch):
    for name in ("json", "multiprocessing", "torch", "pickle"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    ((_, found),) = in_processes(where, [None], jobs=1)
    assert not any(str(tmp_path) in str(each) for each in found)
    assert found[-1] != os.getpid()


def test_processes_end_when_results_are_no_longer_wanted(tmp_path):
    path = tmp_path / "pid"
    results = in_processes(wait_or_square, [1, path], jobs=2)
    next(results)
    while not path.exists() or not path.read_text():
        time.sleep(0.05)
    results.close()
    with suppress(ProcessLookupError):
        os.kill(int(path.read_text()), 0)
        pytest.fail("it still runs")


def wait_or_square(item):
    return square(item) if item == 1 else wait(item)
