"""Lightning, without what it says that is no concern of the user."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from types import ModuleType

from tuckertree._base.extras import require_extra

_LOGGERS = ("lightning.pytorch", "lightning.fabric")
_MESSAGES = (
    ".*does not have many workers.*",  # small images need none
    ".*GPU available but not used.*",  # the device is the user's choice
    ".*treespec, LeafSpec.*",  # Lightning's own use of torch
)


_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"


def load_lightning() -> ModuleType:
    """Import Lightning, and undo the environment variable that it sets.

    With it torch looks for the driver's library whenever it is asked for a GPU, thousands of times in an export, and
    where there is none that takes minutes.
    """
    before = os.environ.get(_CHECK)
    lightning = require_extra("lightning", extra="training")
    if before is None:
        os.environ.pop(_CHECK, None)
    return lightning


def hush() -> None:
    """Say no more, in this process."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in _MESSAGES:
        warnings.filterwarnings("ignore", message=message)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Say nothing while the block runs."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            hush()
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
