"""Shared by both halves: names, the table of operations, and the messages between them."""
