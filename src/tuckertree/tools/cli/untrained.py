"""What is said of networks with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuckertree.tools.cli.app import show_warning

if TYPE_CHECKING:
    from pathlib import Path

    from tuckertree._base.names import TrustedName


def warn_if_untrained(model: TrustedName, weights: Path | None) -> None:
    """Warn, where a command is about what weights do, of a network that has random ones."""
    from tuckertree.tools.opening import is_untrained

    if is_untrained(model, weights):
        show_warning(f"{model} has random weights: give trained ones by --weights")
