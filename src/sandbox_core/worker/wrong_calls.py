"""Distinguishes wrong calls of the sandbox API from other bugs in a workflow.

For a misspelt keyword, Python raises a `TypeError` at the call, before any code of ours runs. The
called function is determined from the error's text, which contains its qualified name, and from the
objects that the calling code can reach by that name.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from types import FrameType, FunctionType, ModuleType

import pydantic
from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest, SandboxAgent
from agents.sandbox.capabilities import Capability
from agents.sandbox.entries import BaseEntry
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase
from pydantic import BaseModel, ValidationError

from sandbox_core.wire.strict import mistakes

_CALLED = (BaseSandboxClient, BaseSandboxSession)
_MADE = (
    BaseEntry,
    BaseSandboxClientOptions,
    Capability,
    Manifest,
    SandboxAgent,
    SandboxRunConfig,
    SandboxSessionState,
    SnapshotBase,
)
_PACKAGES = ("agents", "sandbox_core", pydantic.__name__)
_MODULES = ("agents.sandbox", "agents.extensions.sandbox", "sandbox_core")
# "Client.create() got an unexpected keyword", "... missing 1 required", "... takes 1 positional".
_REFUSED = re.compile(r"([\w.]+)\(\) (?:got|missing|takes) ")


def wrong_call(error: TypeError | AttributeError | ValidationError) -> str | None:
    """Return what is wrong with a call of the sandbox API, or None for other errors.

    A call is wrong if the method of a client or session does not exist or does not accept the
    arguments, or if a manifest, options or the like get wrong values. Values are not repeated.
    """
    caller, callee = _last_call(error)
    if isinstance(error, AttributeError):
        return str(error) if callee is None and isinstance(error.obj, _CALLED) else None
    refused = _REFUSED.match(str(error))
    if callee is None:
        return str(error) if refused and _takes_part(refused[1], caller) else None
    called = callee.f_locals.get("self", callee.f_locals.get("cls"))
    cls = called if isinstance(called, type) else type(called)
    if issubclass(cls, _CALLED):
        # The Agents SDK's own wrappers pass any arguments on. Other errors raised in them are not
        # the caller's mistake.
        return f"{cls.__name__}: {error}" if refused and _passes_on(cls, refused[1]) else None
    if not (_is_of_sandboxes(cls) and _makes(callee)):
        return None
    if isinstance(error, ValidationError):
        return mistakes(cls, error) if issubclass(cls, BaseModel) else None
    return f"{cls.__name__}: {error}"


def _last_call(error: Exception) -> tuple[FrameType | None, FrameType | None]:
    """Return the last frame of the workflow's own code, and our frame that it called."""
    caller = callee = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if _module_of(frame).partition(".")[0] not in _PACKAGES:
            caller, callee = frame, None
        elif callee is None:
            callee = frame
    return caller, callee


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _takes_part(name: str, caller: FrameType | None) -> bool:
    """Return whether `name`, as seen by its caller, belongs to the sandbox API."""
    root, _, method = name.partition(".")
    if caller is None:
        return False
    if root == BaseModel.__name__:
        # A positional argument of an unknown model: each that the code names has to be ours.
        models = [each for each in _used(caller) if issubclass(each, BaseModel)]
        return bool(models) and all(map(_is_of_sandboxes, models))
    seen = [each for each in _named(root, caller) if isinstance(each, type | FunctionType)]
    if seen:
        return any(map(_is_of_sandboxes, seen))
    # Clients and sessions are passed around; all others are created where their name is known.
    return method != "__init__" and any(c.__qualname__ == root for c in _with_subclasses(*_CALLED))


def _passes_on(cls: type, name: str) -> bool:
    return name.partition(".")[0] in {each.__qualname__ for each in cls.__mro__}


def _makes(callee: FrameType) -> bool:
    return callee.f_code.co_name == "__init__" or _module_of(callee).startswith(pydantic.__name__)


def _named(name: str, frame: FrameType) -> Iterator[object]:
    for value in (*frame.f_globals.values(), *frame.f_locals.values()):
        if isinstance(value, ModuleType):
            value = vars(value).get(name)
        if isinstance(value, type | FunctionType) and value.__qualname__ == name:
            yield value


def _used(frame: FrameType) -> list[type]:
    values = (frame.f_globals.get(name) for name in frame.f_code.co_names)
    return [value for value in values if isinstance(value, type)]


def _is_of_sandboxes(called: object) -> bool:
    if isinstance(called, type) and issubclass(called, (*_CALLED, *_MADE)):
        return True
    module = str(getattr(called, "__module__", ""))
    return any(module == each or module.startswith(f"{each}.") for each in _MODULES)


def _with_subclasses(*classes: type) -> Iterator[type]:
    for cls in classes:
        yield cls
        yield from _with_subclasses(*cls.__subclasses__())
