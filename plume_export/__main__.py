"""Entry point of `python -m plume_export`, the same as `plume-export`."""

from .cli import main

main()
