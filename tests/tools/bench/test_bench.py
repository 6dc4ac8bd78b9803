"""What is reported of networks that run in turns; how fast they are is not tested."""

from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.io.report import bench_table
from tuckertree.runtimes import get_runtime
from tuckertree.tools.bench import bar_chart, bench, of_model
from tuckertree.tools.bench.memory import peak_memory

SVG = "{http://www.w3.org/2000/svg}"


def subjects(batch=4):
    x = torch.zeros(batch, 3, 8, 8)
    return [
        of_model("large", nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).eval(), x),
        of_model("<small>", nn.Conv2d(3, 8, 3).eval(), x),
    ]


@pytest.fixture(scope="module")
def rows():
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    runtimes = [get_runtime(name, threads=1) for name in ("torch", "onnxruntime")]
    return bench(subjects(), runtimes, repeats=5, memory=False, pause=0)


def test_each_network_on_each_runtime_against_the_first(rows):
    assert [(row.runtime, row.name) for row in rows] == [
        ("torch", "large"),
        ("torch", "<small>"),
        ("onnxruntime", "large"),
        ("onnxruntime", "<small>"),
    ]
    large, small = 8 * 27 * 36 + 8 * 72 * 16, 8 * 27 * 36
    assert [row.macs for row in rows] == [large, small] * 2
    assert [row.mac_ratio for row in rows] == [1, small / large] * 2
    assert [row.size for row in rows] == [4 * (8 * 27 + 8 + 8 * 72 + 8), 4 * (8 * 27 + 8)] * 2
    for row in rows:
        assert 0 < row.seconds.low <= row.seconds.median <= row.seconds.high
        assert row.throughput == 4 / row.seconds.median
        assert (row.batch, row.threads, row.memory) == (4, 1, None)
    assert [row.time_ratio.median for row in rows if row.name == "large"] == [1, 1]


def test_the_table_has_a_line_for_each(rows):
    assert bench_table(rows).row_count == 4


def test_the_times_of_the_table_and_its_ratios_say_the_same(rows):
    table = bench_table(rows)
    for large, small in zip(rows[::2], rows[1::2], strict=True):
        ratio = small.time_ratio
        assert ratio.median == small.seconds.median / large.seconds.median
        assert ratio.low <= ratio.median <= ratio.high
    columns = {head: [row[n] for row in table.rows] for n, head in enumerate(table.heads)}
    for ms, first, faster in zip(
        columns["ms"], [columns["ms"][n // 2 * 2] for n in range(4)], columns["times\nfaster"], strict=True
    ):
        assert float(faster[:-1]) == pytest.approx(float(first) / float(ms), abs=0.02, rel=0.02)


def test_the_chart_is_valid_and_shows_each(rows):
    root = ElementTree.fromstring(bar_chart(rows))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert texts.count("<small>") == texts.count("large") == 2
    assert len(list(root.iter(f"{SVG}rect"))) == 4 + 1


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_memory_of_a_process_of_its_own(name):
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    (row,) = bench(subjects()[:1], [get_runtime(name, threads=1)], repeats=5, pause=0)
    if row.memory is None:
        pytest.skip("only Linux says how much memory a process holds")
    assert 0 < row.memory < 2**30


def test_memory_that_cannot_be_measured_says_why(tmp_path):
    (tmp_path / "x.onnx").write_text("no model")
    pytest.importorskip("onnxruntime")
    if peak_memory.__globals__["_PEAK"].exists():
        with pytest.raises(
            TuckertreeError, match=r"x\.onnx on onnxruntime cannot be measured: .*cannot load"
        ):
            peak_memory("onnxruntime", 1, tmp_path / "x.onnx", torch.zeros(1))


def test_nothing_to_compare_is_refused():
    with pytest.raises(UsageError, match="at least one network"):
        bench([], [get_runtime("torch")])
    with pytest.raises(UsageError, match="at least 5 rounds, got 2"):
        bench(subjects(), [get_runtime("torch")], repeats=2)
