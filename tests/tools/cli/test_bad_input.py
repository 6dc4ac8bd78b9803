"""What is typed or read amiss: one line, the right code, nothing written."""

import os

import numpy as np
import pytest
from PIL import Image

from tests.tools.cli.test_cli import tuckertree
from tuckertree.tools.cli import options

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")


def refused(*arguments):
    """Code and message of a command that must fail in one line."""
    code, _, err = tuckertree(*arguments)
    assert err.startswith("error: "), err
    assert err.count("\n") == 1, err
    return code, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--zz"], "No such option: --zz"),
        (["zz"], "No such command 'zz'"),
        (["evaluate", "demo"], "Missing option '--data'"),
        (
            ["compress", "demo", "--params", ".5", "-o", "o", "--threads", "0"],
            "Invalid value for '--threads'",
        ),
        (["bench", "demo", "--rounds", "x"], "Invalid value for '--rounds'"),
    ],
)
def test_what_the_parser_refuses_is_one_line_too(arguments, message):
    code, err = refused(*arguments)
    assert (code, message in err, "--help" in err) == (2, True, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "demo", "--threads", "2"], "--threads belongs to --contract"),
        (["export", "demo", "--batch", "2"], "--batch belongs to --contract"),
        (["export", "demo", "--data-images", "2"], "--data-images belongs to --data"),
        (["export", "demo", "--calibration-images", "2"], "--calibration-images belongs to --calibration"),
        (["export", "demo", "--tolerance", "nan"], "--tolerance is 0 or more"),
        (["export", "demo", "--tolerance", "-1"], "--tolerance is 0 or more"),
        (["inspect", "demo", "--by", "macs"], "--by belongs to --curve"),
        (["inspect", "demo", "--calibration", "demo"], "--calibration belongs to --curve or --sensitivity"),
        (["inspect", "a.onnx", "--mean", "1"], "--mean belongs to --calibration"),
        (["compress", "demo", "--params", ".5", "--calibration-images", "2"], "belongs to --calibration"),
    ],
)
def test_an_option_without_that_which_it_belongs_to_is_refused(arguments, message, tmp_path):
    output = [] if arguments[0] == "inspect" else ["-o", tmp_path / "o.onnx"]
    code, err = refused(*arguments, *output)
    assert (code, message in err) == (2, True)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--std", "--scale", "--mean"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_images_are_made_numbers_by_numbers(option, value, tmp_path):
    images = ("--calibration", "demo", option, value)
    assert refused("compress", "demo", "--params", 0.5, *images, "-o", tmp_path / "o")[0] == 2


def test_a_torch_network_is_not_saved_under_the_name_of_an_onnx_file(tmp_path):
    code, err = refused("compress", "demo", "--params", 0.5, "-o", tmp_path / "small.onnx")
    assert (code, "tuckertree export" in err) == (2, True)


def test_what_does_not_fit_into_memory_is_one_line():
    code, err = refused("inspect", "demo", "--input-size", "3,10000000,10000000")
    assert (code, "out of memory" in err) == (1, True)


@needs_pipes
def test_pipes_and_huge_files_among_images_are_not_waited_for(tmp_path):
    for name in ("images/0.png", "table/test.parquet", "huge/0.png"):
        (tmp_path / name).parent.mkdir()
        if name.startswith("huge"):
            with (tmp_path / name).open("wb") as file:
                file.truncate(2**40)
        else:
            os.mkfifo(tmp_path / name)
        code, err = refused("evaluate", "demo", "--data", (tmp_path / name).parent)
        assert (code, "pipe or device" in err or "larger than any image" in err) == (1, True)


def test_images_of_another_size_come_with_the_option_that_resizes_them(tmp_path):
    Image.new("RGB", (40, 48)).save(tmp_path / "0.png")
    assert "--input-size 3,32,32" in refused("evaluate", "demo", "--data", tmp_path)[1]


@needs_pipes
def test_values_of_inputs_are_whole_files_of_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(options, "_LARGEST_VALUES", 10_000)
    os.mkfifo(tmp_path / "pipe.npy")
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(10_000))
    for given, message in (
        (f"x:{tmp_path / 'pipe.npy'}", "pipe or device"),
        (tmp_path / "bomb.npz", "larger than any inputs"),
    ):
        code, err = refused("inspect", "a.onnx", "--input-values", given)
        assert (code, message in err) == (1, True)
