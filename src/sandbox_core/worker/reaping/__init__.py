"""Sandboxes whose workflows are closed: how they are found, and deleted."""
