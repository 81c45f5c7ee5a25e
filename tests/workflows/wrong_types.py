"""A workflow that passes arguments of wrong types."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from agents.sandbox.errors import SandboxError
from pydantic import BaseModel
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType
from workflows.sessions import new_session

from sandbox_core.errors import SandboxCoreError
from sandbox_core.workflow import temporal_sandbox_client


class _Stream:
    def __init__(self, content: object) -> None:
        self._content = content

    def read(self) -> object:
        return self._content


_VALUES: dict[str, Any] = {
    "None": None,
    "a number": 5,
    "a fraction": 1.5,
    "text": "text",
    "bytes": b"bytes",
    "a list": ["a"],
    "a list of numbers": [5],
    "a dict": {"a": 1},
    "a class": dict,
    "a truth": True,
    "a stream of nothing": _Stream(None),
    "a stream of numbers": _Stream(3),
}
_PATH = {"text"}
_USER = {"None", "text"}
_FLAG = {"a truth"}
_TEXT = {"text", "bytes"}
# Python's and pydantic's True is 1.
_SECONDS = {"None", "a number", "a fraction", "a truth"}
_TOKENS = {"None", "a number", "a truth"}
_COMMAND = {
    "command": {"text", "a number", "a fraction", "a truth"},
    "timeout": _SECONDS,
    "shell": {"a list", "a truth"},
    "user": _USER,
}
_POLL = {"yield_time_s": _SECONDS, "max_output_tokens": _TOKENS}

SESSION: dict[str, dict[str, set[str]]] = {
    "exec": _COMMAND,
    "pty_exec_start": {**_COMMAND, "tty": _FLAG, **_POLL},
    "pty_write_stdin": {"session_id": {"a number"}, "chars": _TEXT, **_POLL},
    "pty_resize": {"session_id": {"a number"}, "rows": {"a number"}, "columns": {"a number"}},
    "read": {"path": _PATH, "user": _USER},
    "read_bounded": {"path": _PATH, "max_bytes": {"a number"}},
    "write": {"path": _PATH, "data": set(), "user": _USER},
    "mv": {"source": _PATH, "destination": _PATH, "user": _USER},
    "same_file": {"left": _PATH, "right": _PATH, "follow_symlinks": _FLAG, "user": _USER},
    "ls": {"path": _PATH, "user": _USER},
    "mkdir": {"path": _PATH, "parents": _FLAG, "user": _USER},
    "rm": {"path": _PATH, "recursive": _FLAG, "user": _USER},
    "extract": {
        "path": _PATH,
        "data": set(),
        "compression_scheme": {"None"},
        "archive_limits": {"None"},
    },
    "apply_patch": {"operations": set(), "patch_format": set()},
    "apply_manifest": {"only_ephemeral": _FLAG},
    "hydrate_workspace": {"data": set()},
    "resolve_exposed_port": {"port": {"a number"}},
    # Nothing but its truth counts.
    "normalize_path": {"path": _PATH, "for_write": {*_VALUES}},
    "register_persist_workspace_skip_path": {"path": _PATH},
}
"""The arguments of each public method of a session, and which of the values each may have."""

CLIENT: dict[str, dict[str, set[str]]] = {
    "create": {
        "snapshot": {"None"},
        "manifest": {"None"},
        "options": {"None"},
    },
    "resume": {"state": set()},
    "delete": {"session": set()},
    "serialize_session_state": {"state": set()},
    "deserialize_session_state": {"payload": set()},
    "client": {"name": {"text"}, "config": {"None"}},
}
"""As above, of a client; `client` is the function that makes one."""

RIGHT: dict[str, Any] = {
    "path": "folder/file",
    "source": "folder/file",
    "destination": "folder/other",
    "left": "folder/file",
    "right": "folder/file",
    "session_id": 5,
    "chars": "",
    "rows": 5,
    "columns": 5,
    "max_bytes": 5,
    "port": 80,
    "operations": [],
    "name": "local",
}


METHODS = [*SESSION, *CLIENT]


@workflow.defn
class WrongTypes:
    """Returns what it is told of each wrong argument of one method."""

    @workflow.run
    async def run(self, provider: str, method: str) -> dict[str, str]:
        client: Any = temporal_sandbox_client(provider)
        told = {}
        async with new_session(provider) as session:
            for argument, right in {**SESSION, **CLIENT}[method].items():
                for name in _VALUES.keys() - right:
                    try:
                        answer = _call(client, session, method, argument, _VALUES[name])
                        said = (
                            f"returned {await answer if hasattr(answer, '__await__') else answer}"
                        )
                    except (SandboxCoreError, SandboxError) as error:
                        said = str(error)
                    except Exception as error:  # noqa: BLE001 - it is what is asked for
                        said = f"not an error of ours: {error!r}"
                    told[f"{argument} is {name}"] = said
        return told


@workflow.defn
class WrongConfigs:
    """Returns what it is told of each wrong activity config."""

    @workflow.run
    async def run(self) -> list[str]:
        configs: list[Any] = [
            {"start_to_close_timeout": 5},
            {"retry_policy": {"maximum_attempts": 1}},
            {"event_groups": 5},
            {"cancellation_type": None},
            {"heartbeat_timeout": timedelta(seconds=-5)},
            {"retry_policy": RetryPolicy(backoff_coefficient=0.5)},
            {"timeout": 5},
        ]
        told = []
        for config in configs:
            try:
                temporal_sandbox_client("local", config)
            except SandboxCoreError as error:  # noqa: PERF203 - each is told of
                told.append(str(error))
        return told


class _Options(BaseModel):
    type: str = "unix_local"


@workflow.defn
class AcceptedBefore:
    """Passes what earlier versions sent to the worker, and returns what came of it."""

    @workflow.run
    async def run(self, provider: str) -> dict[str, str]:
        config: Any = {
            "start_to_close_timeout": timedelta(minutes=1),
            "cancellation_type": int(ActivityCancellationType.TRY_CANCEL),
        }
        client = temporal_sandbox_client(provider, config)
        options: Any = _Options()
        session: Any = await client.create(options=options)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "an identifier": lambda: session.exec("echo", UUID(int=5), shell=False),
            "nothing": lambda: session.exec(None),
            "a list": lambda: session.exec(["echo"]),
            "a null character": lambda: session.exec("echo \0", shell=False),
            "a shell": lambda: session.exec("echo", shell=1),
            "a time": lambda: session.exec("echo", timeout=-1),
            "a user": lambda: session.exec("echo", user=b"nobody"),
            "a path": lambda: session.read(Path("a\0b")),
            "a stream": lambda: session.write(Path("three"), _Stream(3)),
            "a process": lambda: session.pty_write_stdin(session_id=True, chars=""),
        }
        told = {}
        async with session:
            for name, call in calls.items():
                try:
                    told[name] = type(await call()).__name__
                except Exception as error:  # noqa: BLE001, PERF203 - it is what is asked for
                    told[name] = type(error).__name__
        await client.delete(session)
        return told


def _call(client: Any, session: Any, method: str, argument: str, value: object) -> Any:  # noqa: ANN401 - whatever it returns
    made = {"client": temporal_sandbox_client}
    function = made.get(method) or getattr(session if method in SESSION else client, method)
    arguments = {**SESSION, **CLIENT}[method]
    passed = {name: RIGHT[name] for name in arguments if name in RIGHT}
    if "data" in arguments:
        passed["data"] = io.BytesIO(b"x")
    passed[argument] = value
    if "path" in passed and method in ("read", "write") and argument != "path":
        passed["path"] = Path(passed["path"])
    words = [passed.pop("command", "true")] if "command" in arguments else []
    return function(*words, **passed)
