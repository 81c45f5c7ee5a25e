"""What both halves know: names, the table of operations, and what travels between them."""
