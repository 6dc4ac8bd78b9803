"""Compressed models on disk."""

from tuckertree.io.folder import (
    SavedConfig,
    ask_for_model,
    check_output,
    load_folder,
    read_config,
    read_plan,
    read_report,
    save_folder,
)

__all__ = [
    "SavedConfig",
    "ask_for_model",
    "check_output",
    "load_folder",
    "read_config",
    "read_plan",
    "read_report",
    "save_folder",
]
