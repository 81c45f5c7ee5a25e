"""Finds and deletes stored objects to which nothing in Temporal refers."""
