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
from tuckertree.io.hub import is_on_hub, local_folder, push_to_hub

__all__ = [
    "SavedConfig",
    "ask_for_model",
    "check_output",
    "is_on_hub",
    "load_folder",
    "local_folder",
    "push_to_hub",
    "read_config",
    "read_plan",
    "read_report",
    "save_folder",
]
