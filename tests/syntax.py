"""Parses Python for tests that read code."""

from __future__ import annotations

import ast
import gc
from pathlib import Path


def syntax_tree(code: Path | str) -> ast.Module:
    """Return the tree of a file, or of source code.

    Meanwhile no garbage is collected. An error that is logged by what is collected has a traceback,
    for which Python parses as well; inside another parsing, CPython 3.11 then raises `SystemError`,
    "AST constructor recursion depth mismatch" (python/cpython#106905).
    """
    source = code.read_text(encoding="utf-8") if isinstance(code, Path) else code
    enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(source)
    finally:
        if enabled:
            gc.enable()
