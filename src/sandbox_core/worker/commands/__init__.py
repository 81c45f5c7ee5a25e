"""Commands that run exactly once, whatever becomes of the worker that asked for them."""
