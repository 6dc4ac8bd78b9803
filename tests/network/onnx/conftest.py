"""Fixtures of the tests of ONNX models."""

import pytest


@pytest.fixture
def model(tmp_path):
    """A small convolutional network as a file."""
    pytest.importorskip("onnx")
    from tests.network.onnx.cases import network

    return network(tmp_path / "model.onnx")
