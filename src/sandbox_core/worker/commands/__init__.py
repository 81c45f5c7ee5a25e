"""Runs each command exactly once, even if the worker that asked for it dies."""
