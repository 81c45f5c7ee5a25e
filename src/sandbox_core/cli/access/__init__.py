"""Operations in the sandbox of a running agent, by someone who does not own it.

Each is a standalone activity at the own queue of the worker that holds the sandbox: nothing is
added to the workflow's history, and its session stays its own.
"""
