"""How plume-tiny was trained: `PYTHONPATH=calibration python -m plume_tiny_training OUTPUT`. Needs the extra `export`."""
