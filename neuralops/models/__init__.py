"""Operators that are fitted to data; one paper, one file."""

from neuralops.models.fno import FNO as FNO

__all__ = ["FNO"]
