"""`python -m plume_export` is `plume-export`."""

from .cli import main

main()
