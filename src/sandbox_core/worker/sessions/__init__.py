"""The sessions that a worker holds: how one is made, kept, opened again and given up."""
