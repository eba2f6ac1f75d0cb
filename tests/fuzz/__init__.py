"""Fuzzing: what a reader of a user's file may do with any bytes is return, or raise PlumeExportError.

python -m tests.fuzz --cases 100000
python -m tests.fuzz --surface images --seed 0 --case 17     one case again, in this process
"""
