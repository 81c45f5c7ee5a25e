"""One function for each row of the table of operations."""
