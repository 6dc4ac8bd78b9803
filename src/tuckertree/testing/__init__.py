"""Contracts as tests: a subclass names what it adds to tuckertree and inherits the whole suite."""

from tuckertree.testing.methods import MethodContract
from tuckertree.testing.runtime import RuntimeContract

__all__ = ["MethodContract", "RuntimeContract"]
