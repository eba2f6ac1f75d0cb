"""Embed many inputs into one file. Inputs are read as needed, and rows are written as they are computed."""

from .embed_sources import EmbedResult, OnError, embed_sources
from .embedding_file import check_output_file
from .partial import StoppedRun, stopped_run
from .stream import embed_to_file, embed_to_lines
from .summary import RunSummary

__all__ = [
    "EmbedResult",
    "OnError",
    "RunSummary",
    "StoppedRun",
    "check_output_file",
    "embed_sources",
    "embed_to_file",
    "embed_to_lines",
    "stopped_run",
]
