"""Encodes errors in activities and restores them in workflows.

A `SandboxError` of the Agents SDK keeps its class, code, context and attributes, because the SDK's
tools tell the model what happened according to its class.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Protocol, TypeVar, cast

from agents.sandbox.errors import ErrorCode, OpName, SandboxError
from pydantic import JsonValue
from pydantic_core import to_jsonable_python
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from sandbox_core.errors import AtCapacity, OperationFailed, SandboxCoreError
from sandbox_core.wire.naming import NOT_REGISTERED
from sandbox_core.wire.retry_after import retry_after_of
from sandbox_core.wire.subclasses import subclasses_of
from sandbox_core.wire.terminal_errors import is_terminal

_ErrorT = TypeVar("_ErrorT", bound=Exception)
_SequenceT = TypeVar("_SequenceT", str, bytes)

_MAX_DEPTH = 20
_MAX_LENGTH = 32 * 1024

# The SDK's tools and their callers catch these by class.
_BUILTIN_ERRORS: dict[str, type[OperationFailed]] = {
    base.__name__: type(f"Operation{base.__name__}", (OperationFailed, base), {})
    for base in (
        ConnectionError,
        FileExistsError,
        FileNotFoundError,
        IsADirectoryError,
        KeyError,
        NotADirectoryError,
        NotImplementedError,
        OSError,
        PermissionError,
        RuntimeError,
        TimeoutError,
        TypeError,
        ValueError,
    )
}
_SANDBOX_ERROR_FIELDS = frozenset(
    {"message", "error_code", "op", "context", "cause", "retryable"},
)


class Redact(Protocol):
    """Takes secrets out of text and output."""

    def __call__(self, text: _SequenceT, /) -> _SequenceT:
        """Return `text` without secrets."""
        ...


def _as_it_is(text: _SequenceT, /) -> _SequenceT:
    return text


def encode_error(
    error: Exception, *, attempt: int = 1, redact: Redact = _as_it_is
) -> ApplicationError:
    """Return the error that an activity raises for `error`, which `decode_error` restores.

    Only known terminal errors are non-retryable: our own, and those for which `is_terminal` is
    true. A terminal `SandboxError` is an answer to the caller, such as "file not found", and does
    not concern the worker's operator. One that does not say (``retryable=None``) is usually an
    answer too: it is tried once more. Another attempt waits as long as the backend says.

    Args:
        error: The error that a handler raised.
        attempt: The number of the attempt that raised it, from 1.
        redact: Removes secrets from all of its text, before that is cut.
    """
    if isinstance(error, ApplicationError):
        return error
    if isinstance(error, SandboxError):
        terminal = is_terminal(error) or (error.retryable is None and attempt > 1)
        return ApplicationError(
            _text(error.message, redact),
            {
                "classes": _class_names(error),
                "op": error.op,
                "context": _jsonable(error.context, redact),
                "retryable": error.retryable,
                "attributes": {
                    key: _jsonable(value, redact)
                    for key, value in vars(error).items()
                    if key not in _SANDBOX_ERROR_FIELDS and not key.startswith("_")
                },
            },
            type=str(error.error_code),
            non_retryable=terminal,
            next_retry_delay=None if terminal else retry_after_of(error),
            category=_category(benign=terminal),
        )
    terminal = is_terminal(error)
    return ApplicationError(
        _text(str(error), redact) or type(error).__name__,
        {"classes": _class_names(error)},
        type=_type_of(error),
        non_retryable=terminal,
        next_retry_delay=None if terminal else retry_after_of(error),
    )


def _class_names(error: Exception) -> list[JsonValue]:
    return [cls.__name__ for cls in type(error).__mro__ if cls is not object]


def _type_of(error: Exception) -> str:
    # To the retry policy, this name means an activity type that the worker does not know.
    name = type(error).__name__
    return f"{type(error).__module__}.{name}" if name == NOT_REGISTERED else name


def _category(*, benign: bool) -> ApplicationErrorCategory:
    return ApplicationErrorCategory.BENIGN if benign else ApplicationErrorCategory.UNSPECIFIED


def decode_error(failure: ApplicationError) -> Exception:
    """Return the error encoded in `failure`, with the class that was raised in the activity.

    A class that does not exist here falls back to its nearest base that does.
    """
    details = failure.details[0] if failure.details else None
    # Our own errors have no details; a vendor's error may have the same name.
    own = None if failure.details else _class_named(SandboxCoreError, failure.type or "")
    if own is not None and issubclass(own, AtCapacity):
        return own(failure.message, retry_after=failure.next_retry_delay)
    if own is not None:
        return own(failure.message)
    if not isinstance(details, Mapping):
        return failure
    classes = [name for name in details.get("classes", ()) if isinstance(name, str)]
    for name in classes:
        sandbox_class = _class_named(SandboxError, name)
        if sandbox_class is not None:
            return _restore_sandbox_error(sandbox_class, failure, details)
        if name in _BUILTIN_ERRORS:
            return _BUILTIN_ERRORS[name](failure.message)
    return OperationFailed(f"{failure.type}: {failure.message}")


def _restore_sandbox_error(
    cls: type[SandboxError], failure: ApplicationError, details: Mapping[str, JsonValue]
) -> SandboxError:
    # Subclasses take their own keyword arguments and compute the message from them, so the instance
    # is created without `__init__` and filled as the dataclass base does.
    error = cls.__new__(cls)
    context = details.get("context")
    retryable = details.get("retryable")
    SandboxError.__init__(
        error,
        message=failure.message,
        error_code=_error_code(failure.type),
        op=cast("OpName", details.get("op")),
        context=cast("dict[str, object]", _from_jsonable(context or {})),
        retryable=retryable if isinstance(retryable, bool) else None,
    )
    attributes = details.get("attributes")
    for key, value in attributes.items() if isinstance(attributes, dict) else ():
        restored = _from_jsonable(value)
        setattr(error, key, tuple(restored) if isinstance(restored, list) else restored)
    return error


def _error_code(value: str | None) -> ErrorCode:
    try:
        return ErrorCode(value)
    except ValueError:
        return ErrorCode.SANDBOX_CONFIG_INVALID


def _class_named(base: type[_ErrorT], name: str) -> type[_ErrorT] | None:
    """Return `base` or the class derived from it that has this name."""
    return next((cls for cls in (base, *subclasses_of(base)) if cls.__name__ == name), None)


def _jsonable(value: object, redact: Redact, depth: int = 0) -> JsonValue:
    # Providers put anything into an error's context, which must not make the error unreadable.
    if depth > _MAX_DEPTH:
        return "..."
    if isinstance(value, str):
        return _text(value, redact)
    if isinstance(value, bytes | bytearray | memoryview):
        cut = _cut(redact(bytes(value)), b"\n...\n")
        return {"base64": base64.b64encode(cut).decode("ascii")}
    if isinstance(value, Mapping):
        items = {
            _text(str(key), redact): _jsonable(item, redact, depth + 1)
            for key, item in value.items()
        }
        return {"mapping": items} if items.keys() in ({"base64"}, {"mapping"}) else items
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item, redact, depth + 1) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    try:
        plain = to_jsonable_python(value, fallback=str)
    except Exception:  # noqa: BLE001 - whatever an object of a provider does when it is printed
        return f"<{type(value).__name__}>"
    return _jsonable(plain, redact, depth + 1)


def _text(text: str, redact: Redact) -> str:
    # File names may contain lone surrogates, which neither JSON nor protobuf accepts.
    return _cut(redact(text), "\n...\n").encode("utf-8", "backslashreplace").decode("utf-8")


def _cut(value: _SequenceT, mark: _SequenceT) -> _SequenceT:
    # Temporal drops a failure of 2 MiB, and with it the error's type.
    half = _MAX_LENGTH // 2
    return value if len(value) <= _MAX_LENGTH else value[:half] + mark + value[-half:]


def _from_jsonable(value: JsonValue) -> object:
    if isinstance(value, dict):
        encoded, mapping = value.get("base64"), value.get("mapping")
        if len(value) == 1 and isinstance(encoded, str):
            return base64.b64decode(encoded)
        if len(value) == 1 and isinstance(mapping, dict):
            value = mapping
        return {key: _from_jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_jsonable(item) for item in value]
    return value
