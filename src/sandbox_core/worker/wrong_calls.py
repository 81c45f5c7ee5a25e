"""Distinguishes wrong calls of the sandbox API from other bugs in a workflow.

The traceback decides: what the workflow's own code called last, and whether that belongs to the
sandbox API. Where it does not tell, the error counts as any other bug.
"""

from __future__ import annotations

import ast
import linecache
from itertools import islice
from types import FrameType, ModuleType, TracebackType

import pydantic
from agents.run_config import SandboxRunConfig
from agents.sandbox.entries import BaseEntry
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase
from pydantic import BaseModel, ValidationError

from sandbox_core.wire.strict import mistakes
from sandbox_core.worker.refused_calls import only_refused_call, value_of

_CORE = "sandbox_core"
_PACKAGES = ("agents", _CORE, pydantic.__name__)
_SANDBOXES = ("agents.sandbox", "agents.extensions.sandbox", _CORE)
# Defined elsewhere, or derived from by providers.
_MADE = (
    BaseEntry,
    BaseSandboxClientOptions,
    SandboxRunConfig,
    SandboxSessionState,
    SnapshotBase,
)


def wrong_call(error: TypeError | AttributeError | ValidationError) -> str | None:
    """Return what is wrong with a call of the sandbox API, or None for other errors.

    A call is wrong if a client or session of sandbox-core does not have the method or the method
    does not accept the arguments, or if wrong values are passed to a manifest, options or another
    model. Values are not repeated.
    """
    caller, callee = _last_call(error)
    if callee is not None:
        return _wrong_values(callee, error)
    if isinstance(error, AttributeError):
        return str(error) if _is_in(type(error.obj), _CORE) else None
    # Python refuses wrong arguments in the caller's frame, before any code of the callee runs.
    return str(error) if caller is not None and _calls_sandboxes(caller, str(error)) else None


def _last_call(error: Exception) -> tuple[TracebackType | None, FrameType | None]:
    """Return where the workflow's own code was, and our frame that it called, if any."""
    caller = callee = None
    tb = error.__traceback__
    while tb is not None:
        if not _is_of(_module_of(tb.tb_frame), *_PACKAGES):
            caller, callee = tb, None
        elif callee is None:
            callee = tb.tb_frame
        tb = tb.tb_next
    return caller, callee


def _wrong_values(callee: FrameType, error: Exception) -> str | None:
    """Return what is wrong with the values of an object that `callee` creates."""
    creates = callee.f_code.co_name == "__init__" or _is_of(_module_of(callee), pydantic.__name__)
    made = callee.f_locals.get("self", callee.f_locals.get("cls"))
    cls = made if isinstance(made, type) else type(made)
    if not creates or not _is_made(cls) or isinstance(error, AttributeError):
        return None
    if isinstance(error, ValidationError):
        return mistakes(cls, error) if issubclass(cls, BaseModel) else None
    return f"{cls.__name__}: {error}"


def _calls_sandboxes(caller: TracebackType, said: str) -> bool:
    """Return whether the call that Python refused is one of the sandbox API."""
    frame, call = caller.tb_frame, _refused_call(caller, said)
    if call is None:
        return False
    function = call.func
    if isinstance(function, ast.Attribute):
        owner = value_of(function.value, frame)
        if not isinstance(owner, type | ModuleType):
            return _is_in(type(owner), _CORE)
    called = value_of(function, frame)
    return _is_made(called) if isinstance(called, type) else _is_in(called, _CORE)


def _refused_call(caller: TracebackType, said: str) -> ast.Call | None:
    """Return the call that Python refused, or None if it is not known."""
    frame = caller.tb_frame
    if not hasattr(frame.f_code, "co_positions"):
        return only_refused_call(caller, said)
    position = next(islice(frame.f_code.co_positions(), caller.tb_lasti // 2, None))
    first, last, start, end = position
    if first is None or last is None or start is None or end is None:
        return None
    lines = [
        line.encode()
        for line in linecache.getlines(frame.f_code.co_filename, frame.f_globals)[first - 1 : last]
    ]
    if len(lines) != last - first + 1:
        return None
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    try:
        call = ast.parse(b"(" + b"".join(lines) + b")", mode="eval").body
    except (SyntaxError, SystemError):  # The latter if CPython 3.11 was parsing already.
        return None
    return call if isinstance(call, ast.Call) else None


def _is_made(cls: type) -> bool:
    return issubclass(cls, _MADE) or _is_in(cls, *_SANDBOXES)


def _is_in(defined: object, *packages: str) -> bool:
    return _is_of(str(getattr(defined, "__module__", "")), *packages)


def _is_of(module: str, *packages: str) -> bool:
    return any(module == each or module.startswith(f"{each}.") for each in packages)


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
