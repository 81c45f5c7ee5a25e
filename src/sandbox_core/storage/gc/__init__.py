"""Stored objects that nothing in Temporal refers to: how they are found, and deleted."""
