"""ONNX files, compared as torch networks are."""

import json

import pytest
import torch

import tuckertree as tt
from tests.tools.cli.test_bad_input import refused
from tests.tools.cli.test_cli import tuckertree
from tests.tools.comparison.cases import Twice, tiny
from tuckertree._base.names import TrustedName
from tuckertree.calibration import output_distances
from tuckertree.tools.comparison import NamedTask, Settings, cells_of, measure_cell
from tuckertree.tools.comparison.cells import ORIGINAL

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

IMAGES = ("--data", "demo", "--data-images", 24)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The tiny network as a file."""
    path = tmp_path_factory.mktemp("file") / "net.onnx"
    return tt.export(tiny(), path, torch.zeros(1, 3, 32, 32), dynamic="batch").path


def task_of(file, calibration="demo"):
    return NamedTask(TrustedName(str(file)), "demo", 24, calibration, 24 if calibration else None)()


def test_a_file_is_compared_by_the_distance_of_its_outputs(file, tmp_path):
    options = (*IMAGES, "--methods", "svd:weights", "--budgets", "1.5x,1000x")
    code, out, err = tuckertree("compare", file, *options, "-o", tmp_path / "out")
    assert code == 0, err
    dense, small, beyond = (
        json.loads((tmp_path / "out" / "cells" / f"{name}.json").read_text())
        for name in ("dense", "svd.weights-1.5x", "svd.weights-1000x")
    )
    assert dense["score"]["distance"] == 0 < small["score"]["distance"] < 2
    assert dense["macs"] >= 1.5 * small["macs"]
    assert beyond["unreachable"]
    assert "relative distance of the outputs from the original's on 24 of demo (test)" in out
    assert tuckertree("compare", file, *options, "-o", tmp_path / "out") == (0, out, "")


def test_options_of_torch_networks_are_refused_for_a_file(file, tmp_path):
    options = (*IMAGES, "--methods", "svd:weights", "--weights", "w.safetensors")
    code, err = refused("compare", file, *options, "-o", tmp_path / "out")
    assert (code, "--weights is not supported for ONNX models" in err) == (2, True), err


def test_a_cell_is_what_compress_makes_of_the_file(file):
    task = task_of(file)
    (cell,) = cells_of(["svd"], ["2x"])
    found = measure_cell(task, cell, Settings())
    calibration = task.folds[0].calibration
    own = tt.compress(file, None, tt.Budget(macs=0.5), methods=("svd",), calibration=calibration)
    images = own.output.images(task.folds[0].score.images)
    (distance,) = output_distances(own.output.original, [own.model], images)
    assert found.score.distance == pytest.approx(distance, rel=1e-4)
    assert (found.parameters, found.macs) == (own.plan.parameters[1], own.plan.macs[1])


def test_a_file_is_tuned_and_timed_too(file):
    (cell,) = cells_of(["svd"], ["2x"])
    found = measure_cell(task_of(file), cell, Settings(tune="2", runtime="onnxruntime"))
    assert found.tuned.distance > 0
    assert found.tuning > 0
    assert found.latency.ratio > 0


@pytest.mark.parametrize("images", ["demo", None])
def test_a_file_is_pruned_in_torch_and_written(images, tmp_path):
    pytest.importorskip("torch_pruning")
    file = tt.export(Twice().eval(), tmp_path / "twice.onnx", torch.zeros(1, 3, 32, 32)).path
    (cell,) = cells_of(["prune" if images else "prune:weights"], ["1.5x"])
    task = task_of(file, images)
    dense, found = (measure_cell(task, each, Settings()) for each in (ORIGINAL, cell))
    assert not found.failed
    assert 0.5 * dense.macs < found.macs <= dense.macs / 1.5
    assert dense.score.distance == 0 < found.score.distance < 2


def test_a_file_that_cannot_be_pruned_says_why(file):
    pytest.importorskip("torch_pruning")
    found = measure_cell(task_of(file), cells_of(["prune"], ["1.5x"])[0], Settings())
    assert found.failed.startswith("torch-pruning cannot prune this network: the node ")
    assert "shape '[-1, 24]' is invalid" in found.failed
