"""The only place that resolves the worker's secrets, remembers and redacts them.

A manifest's environment and mounts refer to secrets that only the worker has. Each operation on a
session learns the values, regardless of which activity, worker or backend gave them to the sandbox,
and redacts them in its results, errors and log. The bytes of files and archives are not altered.
"""

from __future__ import annotations

import json
import logging
import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias, TypeVar, cast

from agents.sandbox import Manifest
from agents.sandbox.entries import BaseEntry, Mount
from agents.sandbox.manifest import Environment, StrEnvValue
from pydantic import BaseModel

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire.manifest_entries import change_entries, change_entry
from sandbox_core.wire.mount_credentials import Credential, referenced_variables
from sandbox_core.wire.worker_env import read_worker_env, reading_worker_env

SHORTEST = 6
"""The fewest characters of a secret: shorter text occurs in output by chance."""

_SHORTEST_PIECE = 4
"""The fewest bytes of a partial secret, next to a cut in an output, that are redacted."""

_REDACTED = b"***"
_CREDENTIALS = "the credentials of mounts"

# The places where the worker and the SDK cut out the middle of an output, or prepend a line.
_CUTS = re.compile(
    rb"\n?\[\.\.\. [0-9,]+ bytes cut[^\]\n]*\]\n?"
    rb"|\xe2\x80\xa6[0-9]+ (?:tokens|chars) truncated\xe2\x80\xa6"
    rb"|\A(?:Total output lines: [0-9]+\n\n)"
    rb"|\n\.\.\.\n"
)

_T = TypeVar("_T")
_TextT = TypeVar("_TextT", str, bytes)


@dataclass(frozen=True)
class AllowAllWorkerEnvVars:
    """Lets workflows read *every* variable of the worker's environment.

    That includes the worker's own credentials for Temporal, models, clouds and the storage. A
    workflow that names one puts it into a sandbox, where a command written by a model can use it
    and send it anywhere. List the variables instead if you can::

        SandboxPlugin(worker_env=["GITHUB_TOKEN"])
        SandboxPlugin(worker_env=AllowAllWorkerEnvVars())
    """


Allowed: TypeAlias = "frozenset[str] | AllowAllWorkerEnvVars"


def allowed_names(names: Iterable[str] | AllowAllWorkerEnvVars) -> Allowed:
    """Return which variables of its environment a worker lets workflows read.

    Raises:
        TypeError: `names` is one name, or the class `AllowAllWorkerEnvVars`.
    """
    if isinstance(names, AllowAllWorkerEnvVars):
        return names
    if isinstance(names, str):
        raise TypeError(f"worker_env takes a collection of names: pass worker_env=[{names!r}]")
    if cast("object", names) is AllowAllWorkerEnvVars:
        raise TypeError("worker_env takes an instance: pass AllowAllWorkerEnvVars()")
    return frozenset(names)


@dataclass(kw_only=True)
class Secrets:
    """The variables that one operation may read, and the values that it must not show.

    Attributes:
        allowed: The names that it may read.
        values: The secrets that it knows, including its session's.
    """

    allowed: Allowed = frozenset()
    values: set[bytes] = field(default_factory=set)

    def read(self, name: str) -> str:
        """Return the value of a variable of the worker's environment, and remember it.

        Raises:
            InvalidRequest: The variable is not allowed on this worker, not set, or too short.
        """
        if not isinstance(self.allowed, AllowAllWorkerEnvVars) and name not in self.allowed:
            raise InvalidRequest(
                f"WorkerEnv(name={name!r}) is not allowed on this worker: name it in "
                f"SandboxPlugin(worker_env=[{name!r}])."
            )
        value = os.environ.get(name)
        if not value:
            raise InvalidRequest(
                f"WorkerEnv(name={name!r}) is not set in this worker's environment."
            )
        if len(value) < SHORTEST:
            raise InvalidRequest(
                f"WorkerEnv(name={name!r}) has fewer than {SHORTEST} characters, too few to "
                f"redact: it could not be told from other text. If it is not a secret, write its "
                f"value into the manifest."
            )
        self.remember([value])
        return value

    def remember(self, values: Iterable[str]) -> None:
        """Redact these values from now on, except those too short to be secrets."""
        # An environment may contain bytes that are not UTF-8.
        self.values.update(os.fsencode(value) for value in values if len(value) >= SHORTEST)

    def remember_environment(self, environment: Environment, values: Mapping[str, str]) -> None:
        """Remember an environment's values, except those that are literals in it."""
        self.remember(
            values[name]
            for name, entry in environment.normalized().items()
            if not isinstance(entry.value, StrEnvValue)
        )

    async def learn(self, manifest: Manifest) -> None:
        """Remember the values of a manifest's environment, except those that are literals in it.

        Raises:
            InvalidRequest: This worker cannot resolve a value, and so could not redact it.
            Exception: Any error of an application's `EnvValue`.
        """
        self.remember_environment(manifest.environment, await manifest.environment.resolve())

    def redact(self, answer: _T) -> _T:
        """Return an operation's result without secrets. Raw bytes are returned unchanged."""
        if not self.values or isinstance(answer, bytes):
            return answer
        return cast("_T", self._redacted(answer))

    def redact_output(self, output: _TextT) -> _TextT:
        """Return text or output without secrets, or parts of one at its ends and next to cuts.

        A command may write a secret in two pieces, and its output may have been cut.
        """
        if not self.values:
            return output
        if isinstance(output, bytes):
            return self._whole_and_pieces(output)
        # Bytes that are not text survive this round trip.
        content = output.encode("utf-8", "surrogatepass")
        return self._whole_and_pieces(content).decode("utf-8", "surrogatepass")

    def held_back(self, text: bytes) -> int:
        """Return how many bytes at the end must wait for what follows: it may end a secret there.

        What is before them can be redacted by itself.
        """
        forms = _forms(frozenset(self.values))
        end = len(text)
        for form in forms:
            end = min(end, len(text) - _overlap(text, form[:-1], 1))
        while True:  # The end must not be inside a secret either.
            inside = [
                start
                for form in forms
                if 0
                <= (start := text.rfind(form, 0, end + len(form) - 1))
                < end
                < start + len(form)
            ]
            if not inside:
                return len(text) - end
            end = min(inside)

    def _redacted(self, value: object) -> object:
        if isinstance(value, bytes):
            return self._whole_and_pieces(value)
        if isinstance(value, str):
            content = value.encode("utf-8", "surrogatepass")
            return self._whole(content).decode("utf-8", "surrogatepass")
        if isinstance(value, BaseModel):
            fields = {
                name: self._redacted(getattr(value, name)) for name in type(value).model_fields
            }
            return value.model_copy(update=fields)
        if isinstance(value, dict):
            return {self._redacted(key): self._redacted(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._redacted(item) for item in value)
        return value

    def _whole(self, text: bytes) -> bytes:
        for form in _forms(frozenset(self.values)):
            text = text.replace(form, _REDACTED)
        return text

    def _whole_and_pieces(self, text: bytes) -> bytes:
        redacted, start = [], 0
        text = self._whole(text)
        for cut in _CUTS.finditer(text):
            redacted += [self._without_pieces(text[start : cut.start()]), cut[0]]
            start = cut.end()
        return b"".join([*redacted, self._without_pieces(text[start:])])

    def _without_pieces(self, text: bytes) -> bytes:
        forms = _forms(frozenset(self.values))
        if any(len(text) >= _shortest_piece(form) and text in form for form in forms):
            return _REDACTED
        head = max((_overlap(form, text, _shortest_piece(form)) for form in forms), default=0)
        tail = max((_overlap(text, form, _shortest_piece(form)) for form in forms), default=0)
        middle = text[head : len(text) - tail]
        return (_REDACTED if head else b"") + middle + (_REDACTED if tail else b"")


def _shortest_piece(form: bytes) -> int:
    return min(_SHORTEST_PIECE, (len(form) + 1) // 2)


def _overlap(first: bytes, second: bytes, shortest: int) -> int:
    """Return the length of the longest end of `first` that is a beginning of `second`."""
    longest = min(len(first), len(second))
    return next((n for n in range(longest, shortest - 1, -1) if first.endswith(second[:n])), 0)


@lru_cache(maxsize=64)
def _forms(values: frozenset[bytes]) -> tuple[bytes, ...]:
    """Return the forms in which secrets may be written, the longest first."""
    forms: set[str] = set()
    for text in map(os.fsdecode, values):
        lines = text.splitlines()
        # Verbatim; in Python, in JSON, on a shell's command line, and at a terminal.
        forms.update({text, text.strip(), repr(text)[1:-1], json.dumps(text)[1:-1]})
        forms.update({text.replace("'", "'\"'\"'"), "\r\n".join(lines)})
        forms.update(lines)  # A private key is often shown line by line.
    encoded = {os.fsencode(form) for form in forms if len(form) >= SHORTEST}
    return tuple(sorted(encoded, key=lambda form: (-len(form), form)))


# --- The current operation ------------------------------------------------------------------------

_current: ContextVar[Secrets | None] = ContextVar("sandbox_core_secrets", default=None)


@contextmanager
def knowing_secrets(allowed: Allowed) -> Iterator[Secrets]:
    """Let the current operation read these variables, and remember the values that it reads."""
    secrets = Secrets(allowed=allowed)
    token = _current.set(secrets)
    try:
        with reading_worker_env(secrets.read):
            yield secrets
    finally:
        _current.reset(token)


def current_secrets() -> Secrets:
    """Return the current operation's secrets; outside an operation, nothing is allowed or known."""
    return _current.get() or Secrets()


# --- The credentials of mounts ------------------------------------------------------------------


def with_credentials(manifest: Manifest) -> Manifest:
    """Return `manifest` with its mounts' references resolved; works only in an operation.

    Raises:
        InvalidRequest: A variable is not allowed on this worker, not set, or too short.
    """
    return change_entries(manifest, _with_credentials)


def entry_with_credentials(entry: BaseEntry) -> BaseEntry:
    """Return one entry with its references resolved; see `with_credentials`."""
    return change_entry(entry, _with_credentials)


def _with_credentials(entry: BaseEntry) -> BaseEntry:
    if not isinstance(entry, Mount):
        return entry
    read = {
        name: Credential.read_from(variable, read_worker_env(variable, _CREDENTIALS))
        for name, variable in referenced_variables(entry).items()
    }
    return entry.model_copy(update=read) if read else entry


# --- The log ------------------------------------------------------------------------------------


def keep_secrets_out_of_logs() -> None:
    """Redact the current operation's secrets in every log record; calling it again is safe.

    Vendors' SDKs and the Agents SDK log anything, including errors and commands, and their loggers
    are not below one of ours. Records from outside an operation are unchanged.
    """
    factory = logging.getLogRecordFactory()
    if not isinstance(factory, _RedactingFactory):
        logging.setLogRecordFactory(_RedactingFactory(factory))


class _RedactingFactory:
    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *args: object, **more: object) -> logging.LogRecord:
        record = self._make(*args, **more)
        secrets = _current.get()
        if secrets is not None and secrets.values:
            _redact_record(record, secrets)
        return record


def _redact_record(record: logging.LogRecord, secrets: Secrets) -> None:
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - the handler reports what a logger was given wrongly
        message = f"{record.msg} {record.args}"
    redacted = secrets.redact_output(message)
    if redacted != message:
        record.msg, record.args = redacted, ()
    if record.exc_info:
        trace = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        redacted = secrets.redact_output(trace)
        if redacted != trace:
            # Formatters use this text; without the exception they cannot format it again.
            record.exc_info, record.exc_text = None, redacted
