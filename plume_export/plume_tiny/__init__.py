"""plume-tiny: a small PLUME model trained on drawings, and the code that makes the drawings.

It shows without a real checkpoint that a pipeline works, including quantisation. It knows only the scenes in `scenes.py`.
"""
