"""Precision by measurement: what the calibration run recorded, and what is done with it."""
