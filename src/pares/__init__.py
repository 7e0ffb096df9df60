"""Pares: the node on your PC."""

__version__ = "0.1.0"
