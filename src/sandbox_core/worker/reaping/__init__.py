"""Finds and deletes orphans: sandboxes whose workflows are closed."""
