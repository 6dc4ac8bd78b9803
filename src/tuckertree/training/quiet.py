"""Lightning, without what it says that is no concern of the user."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

_LOGGERS = ("lightning.pytorch", "lightning.fabric")
_MESSAGES = (
    ".*does not have many workers.*",  # small images need none
    ".*GPU available but not used.*",  # the device is the user's choice
    ".*treespec, LeafSpec.*",  # Lightning's own use of torch
)


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
