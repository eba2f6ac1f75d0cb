"""Detect this machine's GPU, its software and memory, and choose the target that matches them."""
