"""plume-tiny: a small trained PLUME on drawings, the drawings themselves, and how it was trained.

It shows that a pipeline works, quantisation included, without a real checkpoint at hand. What it knows is `scenes.py`.
"""
