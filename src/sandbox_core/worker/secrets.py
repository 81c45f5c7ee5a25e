"""Secrets of the worker: resolved, remembered for each session, and removed, here only.

A manifest's environment and its mounts name what only the worker has. An operation learns the
values whenever it uses the session, whichever activity, worker or backend gave them to the sandbox,
and they are taken out of what it answers, raises and logs. The bytes of files and archives are
answered as they are.
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
"""How many characters a secret has at least: fewer are in what commands write by accident."""

_SHORTEST_PIECE = 4
"""How many bytes of a secret are taken out where an output was cut within it; fewer are left."""

_REDACTED = b"***"
_CREDENTIALS = "the credentials of mounts"

# Where the worker and the SDK leave out the middle of an output, or put a line before it.
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

    That includes the credentials of the worker itself: of Temporal, of models, of clouds and of the
    storage. A workflow that names one puts it into a sandbox, where a command that a model has
    written can use it and send it anywhere. Name the variables instead, wherever you can::

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
    """What one operation may read of the worker's environment, and which values it must not show.

    Attributes:
        allowed: The names that it may read.
        values: The secrets that it knows, those of its session among them.
    """

    allowed: Allowed = frozenset()
    values: set[bytes] = field(default_factory=set)

    def read(self, name: str) -> str:
        """Return the value of a variable of the worker's environment, and remember it.

        Raises:
            InvalidRequest: It is not allowed on this worker, is not set, or is too short.
        """
        if not isinstance(self.allowed, AllowAllWorkerEnvVars) and name not in self.allowed:
            raise InvalidRequest(
                f"WorkerEnv({name!r}) is not allowed on this worker: name it in "
                f"SandboxPlugin(worker_env=[{name!r}])."
            )
        value = os.environ.get(name)
        if not value:
            raise InvalidRequest(f"WorkerEnv({name!r}) is not set in this worker's environment.")
        if len(value) < SHORTEST:
            raise InvalidRequest(
                f"WorkerEnv({name!r}) has fewer than {SHORTEST} characters, too few to redact: it "
                f"could not be told from other text. If it is not a secret, write its value into "
                f"the manifest."
            )
        self.remember([value])
        return value

    def remember(self, values: Iterable[str]) -> None:
        """Take values out from now on; what is too short to be a secret stays."""
        # An environment may hold what is not UTF-8.
        self.values.update(os.fsencode(value) for value in values if len(value) >= SHORTEST)

    def remember_environment(self, environment: Environment, values: Mapping[str, str]) -> None:
        """Remember the values of an environment that are not written in it."""
        self.remember(
            values[name]
            for name, entry in environment.normalized().items()
            if not isinstance(entry.value, StrEnvValue)
        )

    async def learn(self, manifest: Manifest) -> None:
        """Remember every value of a manifest's environment that is not written in it.

        Raises:
            InvalidRequest: One is not to be had on this worker, which could not take it out.
            Exception: What an `EnvValue` of the application's raises.
        """
        self.remember_environment(manifest.environment, await manifest.environment.resolve())

    def redact(self, answer: _T) -> _T:
        """Return what an operation answers without secrets; raw bytes are returned as they are."""
        if not self.values or isinstance(answer, bytes):
            return answer
        return cast("_T", self._redacted(answer))

    def redact_output(self, output: _TextT) -> _TextT:
        """Return text or an output without secrets, and without those it begins or ends within.

        A command may write a secret in two pieces, and what it writes may have been cut.
        """
        if not self.values:
            return output
        if isinstance(output, bytes):
            return self._whole_and_pieces(output)
        # Bytes that are no text stay what they are on the way through bytes and back.
        content = output.encode("utf-8", "surrogatepass")
        return self._whole_and_pieces(content).decode("utf-8", "surrogatepass")

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
    """Return how many bytes the end of `first` and the start of `second` have in common."""
    longest = min(len(first), len(second))
    return next((n for n in range(longest, shortest - 1, -1) if first.endswith(second[:n])), 0)


@lru_cache(maxsize=64)
def _forms(values: frozenset[bytes]) -> tuple[bytes, ...]:
    """Return how secrets look in what is written of them, the longest first."""
    forms: set[str] = set()
    for text in map(os.fsdecode, values):
        lines = text.splitlines()
        # As they are; in Python, in JSON, in the command line of a shell, and at a terminal.
        forms.update({text, text.strip(), repr(text)[1:-1], json.dumps(text)[1:-1]})
        forms.update({text.replace("'", "'\"'\"'"), "\r\n".join(lines)})
        forms.update(lines)  # A private key is often shown by the line.
    encoded = {os.fsencode(form) for form in forms if len(form) >= SHORTEST}
    return tuple(sorted(encoded, key=lambda form: (-len(form), form)))


# --- The current operation ------------------------------------------------------------------------

_current: ContextVar[Secrets | None] = ContextVar("sandbox_core_secrets", default=None)


@contextmanager
def knowing_secrets(allowed: Allowed) -> Iterator[Secrets]:
    """Let the current operation read variables of these names, and remember what it has read."""
    secrets = Secrets(allowed=allowed)
    token = _current.set(secrets)
    try:
        with reading_worker_env(secrets.read):
            yield secrets
    finally:
        _current.reset(token)


def current_secrets() -> Secrets:
    """Return what the current operation knows; outside of one, nothing is allowed or known."""
    return _current.get() or Secrets()


# --- The credentials of mounts ------------------------------------------------------------------


def with_credentials(manifest: Manifest) -> Manifest:
    """Return `manifest` with what its mounts refer to; only an operation on a worker can.

    Raises:
        InvalidRequest: A variable is not allowed on this worker, is not set, or is too short.
    """
    return change_entries(manifest, _with_credentials)


def entry_with_credentials(entry: BaseEntry) -> BaseEntry:
    """Return one entry as `with_credentials` returns those of a manifest."""
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
    """Take what the current operation knows out of every record; repeating it is safe.

    Vendors and the SDK log what they please, errors and commands among it, and no logger of this
    library is above theirs. Records that are made elsewhere are left as they are.
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
            # Formatters write the text, and have no exception to write anew.
            record.exc_info, record.exc_text = None, redacted
