"""Signals are handled after OpenVINO has been used as they were before."""

import ctypes
import signal
import sys

import pytest
import torch
from torch import nn

from tests.runtimes.test_runtimes import runtime_of
from tuckertree.runtimes.signal_stack import SignalStack, same_signal_stack, signal_stack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stacks for signals are looked at on Linux")


@pytest.fixture
def asked():
    """Signals that were handled."""
    found = []
    before = signal.signal(signal.SIGTERM, lambda number, _: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, before)


def test_a_stack_put_in_the_place_of_another_is_taken_out_again(asked):
    before = signal_stack()
    size = 1 << 16
    memory = ctypes.create_string_buffer(size)
    with same_signal_stack():
        other = SignalStack(ctypes.addressof(memory), 0, size)
        assert ctypes.CDLL(None).sigaltstack(ctypes.byref(other), None) == 0
        assert signal_stack().address == ctypes.addressof(memory)
    assert (signal_stack().address, signal_stack().size) == (before.address, before.size)
    signal.raise_signal(signal.SIGTERM)
    assert asked == [signal.SIGTERM]


def test_openvino_leaves_the_stack_as_it_was():
    runtime, x = runtime_of("openvino"), torch.zeros(1, 2, 4, 4)
    before = signal_stack()
    loaded = runtime.load(nn.Conv2d(2, 2, 3).eval(), [x])  # while it lives, so does the plugin
    loaded.run([x])
    assert (signal_stack().address, signal_stack().size) == (before.address, before.size)
