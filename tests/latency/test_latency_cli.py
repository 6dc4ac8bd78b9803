"""`compress --latency` on the command line."""

import pytest

from tests.tools.cli.test_cli import tuckertree


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--latency", "2x", "--runtime", "caffe"], 2, "unknown runtime 'caffe'"),
        (["--latency", "2x", "--macs", "0.5"], 2, "cannot be combined"),
        (["--latency", "2x", "--energy", "0.5"], 2, "give one of --energy"),
        (["--latency", "0.5x"], 2, "latency must be a share"),
        (["--latency", "quick"], 2, "latency must be a share"),
        (["--macs", "0.5", "--threads", "1"], 2, "--threads belongs to --latency"),
        (["--latency", "2x", "--runtime", "torch", "--round-to", "0"], 2, "multiple of 1 or more"),
        (["--latency", "2x", "--runtime", "torch", "--objective", "moments"], 2, "needs calibration images"),
        (
            ["--latency", "1000x", "--runtime", "torch", "--threads", "1", "--include", "linear"],
            3,
            "nearest that was measured",
        ),
    ],
)
def test_bad_targets_are_one_line_and_nothing_is_written(options, code, message, tmp_path):
    exit_code, out, err = tuckertree("compress", "demo", "--output", tmp_path / "out", *options)
    assert (exit_code, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()
