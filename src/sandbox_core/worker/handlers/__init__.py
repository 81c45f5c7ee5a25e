"""Carries out operations: one handler per row of the table."""
