"""Finds the call in a line whose arguments Python refused, on Python 3.10.

From Python 3.11 on, a traceback has the position of the call. Before, it has the line, and the
error names the function: the call is known if it is the only one of the line that can be meant.
"""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Iterator
from types import FrameType, FunctionType, ModuleType, TracebackType


def only_refused_call(tb: TracebackType, said: str) -> ast.Call | None:
    """Return the call that Python refused in a frame, or None if it may be one of several.

    Args:
        tb: Where Python raised the error.
        said: The error's text, which begins with the function's qualified name.
    """
    name, parentheses, _ = said.partition("()")
    if not parentheses:
        return None
    suspects = [call for call in _calls_of(tb) if _may_be(call, tb.tb_frame, name)]
    return suspects[0] if len(suspects) == 1 else None


def value_of(node: ast.expr, frame: FrameType) -> object:
    """Return the value of a name or an attribute, without running code; None for all others."""
    if isinstance(node, ast.Name):
        for names in (frame.f_locals, frame.f_globals, frame.f_builtins):
            if node.id in names:
                return names[node.id]
    if isinstance(node, ast.Attribute):
        return inspect.getattr_static(value_of(node.value, frame), node.attr, None)
    return None


def _calls_of(tb: TracebackType) -> Iterator[ast.Call]:
    code, line = tb.tb_frame.f_code, tb.tb_lineno
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename, tb.tb_frame.f_globals)))
    except (SyntaxError, SystemError):  # The latter if CPython 3.11 was parsing already.
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.lineno <= line <= (node.end_lineno or line):
            yield node


def _may_be(call: ast.Call, frame: FrameType, name: str) -> bool:
    """Return whether a call may be one of the function `name`, with arguments that it refuses."""
    called = value_of(call.func, frame)
    if called is None:
        # What is called is not known; of a method, its name is.
        return not isinstance(call.func, ast.Attribute) or name.endswith(f".{call.func.attr}")
    function, bound = _function_of(called), _is_bound(call.func, called, frame)
    if function is None or function.__qualname__ != name:
        return False
    if any(isinstance(word, ast.Starred) for word in call.args):
        return True
    arguments = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
    if len(arguments) < len(call.keywords):
        return True
    try:
        inspect.signature(function).bind(*[None] * (len(call.args) + bound), **arguments)
    except TypeError:
        return True
    return False


def _function_of(called: object) -> FunctionType | None:
    """Return the function of Python's that gets a call's arguments; None if one of C's does."""
    if isinstance(called, staticmethod | classmethod):
        called = called.__func__
    if isinstance(called, type):
        made_by = (called.__init__, called.__new__)  # type: ignore[misc]  # looked at, not called
        return next((each for each in made_by if isinstance(each, FunctionType)), None)
    return called if isinstance(called, FunctionType) else None


def _is_bound(node: ast.expr, called: object, frame: FrameType) -> bool:
    """Return whether a call passes one argument more than it shows."""
    if isinstance(called, type | classmethod):
        return True
    if isinstance(called, staticmethod) or not isinstance(node, ast.Attribute):
        return False
    return not isinstance(value_of(node.value, frame), type | ModuleType)
