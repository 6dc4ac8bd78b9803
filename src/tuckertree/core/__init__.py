"""Decomposition and layers: tensors in, factors and chains out; torch alone."""
