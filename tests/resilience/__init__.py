"""Kills, full disks, flipped bits and many threads. Each has a command for long runs, and a short run among the tests.

python -m tests.resilience.kill         SIGKILL at random moments of every command that writes
python -m tests.resilience.full_disk    files that may not grow, os.fsync that fails, a small file system
python -m tests.resilience.bits BUNDLE  every byte of a bundle
python -m tests.resilience.soak         one embedder, many threads, an hour
"""
