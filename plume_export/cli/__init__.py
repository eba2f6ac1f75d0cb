"""The command line: parse the options, call one function, print the result."""

from .main import main

__all__ = ["main"]
