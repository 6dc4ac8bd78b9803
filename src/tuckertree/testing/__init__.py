"""Contracts as tests: a subclass names what it adds to tuckertree and inherits them."""

from tuckertree.testing.runtime import RuntimeContract

__all__ = ["RuntimeContract"]
