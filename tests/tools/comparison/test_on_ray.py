"""Cells on a Ray cluster of two workers: the same results, also where one of them is killed in the middle of its work."""

import os
import signal
import threading
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("ray", exc_type=ImportError)

import tuckertree as tt
from tuckertree.tools.comparison import compare, demo_task
from tuckertree.tools.comparison.on_ray import on_ray
from tuckertree.tools.comparison.processes import Broken

pytestmark = pytest.mark.filterwarnings("ignore")


def killed_once(folder: Path, item: int) -> int:
    mark = folder / str(item)
    if item == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if item == 3:
        raise tt.UsageError("three cannot be")
    return item * item


@pytest.fixture(scope="module")
def cluster():
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_is_killed_loses_no_result(tmp_path):
    found = dict(on_ray(partial(killed_once, tmp_path), [1, 2, 3, 4], jobs=2))
    assert {item: result for item, result in found.items() if item != 3} == {1: 1, 2: 4, 4: 16}
    assert found[3] == Broken("three cannot be")
    assert (tmp_path / "2").exists()


class Unreadable:
    """Sent to a worker, it raises there."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def second(_first, item):
    return item


def unsendable(_item):
    return threading.Lock()


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("work", "cause"),
    [
        (
            partial(second, Unreadable(__import__, "nowhere")),
            "ModuleNotFoundError: No module named 'nowhere'",
        ),
        (partial(second, Unreadable(exec, "raise ValueError('\x1b[31mred')")), "ValueError: ?[31mred"),
        (unsendable, "TypeError: cannot pickle '_thread.lock' object"),
    ],
)
def test_what_fails_around_the_work_is_no_lost_machine(work, cause):
    assert list(on_ray(work, [1], jobs=1)) == [(1, Broken(f"it cannot be done as a Ray task: {cause}"))]


@pytest.mark.usefixtures("cluster")
def test_the_same_comparison_as_by_processes(tmp_path):
    task, methods, budgets = partial(demo_task, 10), ["svd:weights"], ["1.2x"]
    here = compare(task, methods, budgets, tmp_path / "here")
    there = compare(task, methods, budgets, tmp_path / "there", mapper=partial(on_ray, jobs=2))
    assert [o.score for o in here.outcomes] == [o.score for o in there.outcomes]
    assert [o.macs for o in here.outcomes] == [o.macs for o in there.outcomes]


def test_a_cluster_that_is_not_there_is_said(tmp_path):
    import ray

    ray.shutdown()
    with pytest.raises(tt.TuckertreeError, match=r"a Ray cluster is not at 127\.0\.0\.1:1: "):
        list(on_ray(partial(killed_once, tmp_path), [1], jobs=1, address="127.0.0.1:1"))
