"""The stack that this thread handles signals on, kept from a library that puts another in its place.

OpenVINO's CPU plugin does so where the processor has AMX, with one that just holds the registers
(``AT_MINSIGSTKSZ``): Python's handlers then write beyond it, and Ctrl-C ends in a segmentation fault.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_DISABLED = 2  # SS_DISABLE


class SignalStack(ctypes.Structure):
    """``stack_t`` of Linux; without an address, the usual stack."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> SignalStack:
    """The stack now."""
    found = SignalStack(None, _DISABLED, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found


@contextmanager
def same_signal_stack() -> Iterator[None]:
    """Put the stack back that there was; the usual one where the kernel now finds that too small."""
    before = signal_stack()
    try:
        yield
    finally:
        if sys.platform == "linux" and signal_stack().address != before.address:
            set_stack = ctypes.CDLL(None).sigaltstack
            if set_stack(ctypes.byref(before), None) != 0:
                set_stack(ctypes.byref(SignalStack(None, _DISABLED, 0)), None)
