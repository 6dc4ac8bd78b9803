"""Contracts as tests: a subclass names what it tests and inherits the whole suite."""

from tuckertree.testing.methods import MethodContract

__all__ = ["MethodContract"]
