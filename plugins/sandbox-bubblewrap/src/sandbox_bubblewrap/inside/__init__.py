"""Runs inside a sandbox, with the system's Python: standard library only, Python 3.8+."""
