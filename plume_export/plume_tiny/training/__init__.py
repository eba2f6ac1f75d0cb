"""How plume-tiny was trained: `python -m plume_export.plume_tiny.training OUTPUT`. Needs the extra `export`."""
