"""Every name of the SDK's sessions and clients is accounted for."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import agents.sandbox
import pytest
from agents.sandbox import Manifest
from agents.sandbox.entries import File
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxSessionState
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshot
from agents.sandbox.workspace_paths import WorkspacePathPolicy
from parity.surface import CLIENT, SESSION, SINCE_0_24, Kind
from syntax import syntax_tree

from sandbox_core.wire.messages import OpenSessionResponse, SessionRef
from sandbox_core.workflow import TemporalSandboxClient
from sandbox_core.workflow.session import TemporalSandboxSession
from sandbox_core.workflow.session_wrapper import WorkflowSandboxSession

_SDK = Path(agents.sandbox.__file__).parent


class _Any:
    annotated: int


# What Python itself puts into every class, or into every abstract or generic one.
_OF_EVERY_CLASS = {*vars(_Any), "_abc_impl", "__abstractmethods__"} | {
    "__annotate_func__",
    "__annotations_cache__",
    "__orig_bases__",
    "__parameters__",
}
# The SDK's own names for a session and for a client.
_SESSIONS = {"session", "_session", "sandbox_session", "current_session", "resumed_session"}
_CLIENTS = {"client", "_client"}
# The modules whose code runs in the workflow; the others run only inside the real session.
_IN_THE_WORKFLOW = ("runtime", "capabilities/", "memory/")

# Under which names the wrapper has the session that it wraps.
_INNER = {"_inner", "_files_of_inner"}

# What a session asks only of itself, and nobody of the wrapper around it.
_OF_THE_INNER = {"_exec_internal", "_apply_manifest"}


def _declared(*classes: type) -> set[str]:
    declared = {name for cls in classes for name in [*vars(cls), *inspect.get_annotations(cls)]}
    return declared - (_OF_EVERY_CLASS - {"__init__"})


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(_SDK.rglob("*.py")):
        relative = path.relative_to(_SDK).as_posix()
        if not relative.startswith("sandboxes/"):
            yield relative, syntax_tree(path)


def _asked_of(owners: set[str], tree: ast.AST) -> set[str]:
    """Return the attributes that the code takes from anything that is named so."""
    asked: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _last_name(node.value) in owners:
            asked.add(node.attr)
        elif (
            isinstance(node, ast.Call)
            and _last_name(node.func) in {"getattr", "hasattr", "setattr"}
            and _last_name(node.args[0]) in owners
            and isinstance(node.args[1], ast.Constant)
        ):
            asked.add(str(node.args[1].value))
    return asked


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _named(table: dict[str, Kind], *kinds: Kind) -> list[str]:
    return sorted(name for name, kind in table.items() if kind in kinds)


_ACTIVITIES = _named({**SESSION, **SINCE_0_24}, Kind.ACTIVITY)


class TestTable:
    """Each name of the surface has its place in the table."""

    def test_has_what_the_session_classes_declare(self) -> None:
        """A new release of the SDK that adds a method or a hook fails here."""
        assert sorted(SESSION) == sorted(
            _declared(BaseSandboxSession, SandboxSession) - {"__module__"}
        )

    def test_has_what_the_client_class_declares(self) -> None:
        """A new release of the SDK that adds a method fails here."""
        assert sorted(CLIENT) == sorted(_declared(BaseSandboxClient) - {"__init__"})

    def test_has_what_the_sdk_asks_of_a_session(self) -> None:
        """Runtime, capabilities, tools, entries and mounts ask for nothing else."""
        asked = {name for _, tree in _modules() for name in _asked_of(_SESSIONS, tree)}

        assert set() == asked - set(SESSION)
        assert {"exec", "_apply_entry_batch", "_pre_stop_hooks_failed"} <= asked

    def test_has_what_the_sdk_asks_of_a_client(self) -> None:
        """The runtime asks for nothing else."""
        asked = {
            name
            for module, tree in _modules()
            if module.startswith("runtime")
            for name in _asked_of(_CLIENTS, tree)
        }

        assert set() == asked - set(CLIENT)
        assert {"create", "resume", "delete", "backend_id"} <= asked

    def test_asks_in_a_workflow_for_nothing_that_only_a_worker_has(self) -> None:
        """What the SDK runs in the workflow does not touch the real session's inside."""
        asked = {
            name
            for module, tree in _modules()
            if module.startswith(_IN_THE_WORKFLOW)
            for name in _asked_of(_SESSIONS, tree)
        }

        assert set() == asked & set(_named(SESSION, Kind.WORKER_ONLY))


class TestActivity:
    """What needs the real session is ours, in the session or in the wrapper around it."""

    @pytest.mark.parametrize("name", _ACTIVITIES)
    def test_of_a_session_is_not_the_sdks(self, name: str) -> None:
        """The SDK's own method would do it in the workflow's process."""
        assert _is_ours(inspect.getattr_static(TemporalSandboxSession, name))

    @pytest.mark.parametrize(
        "name", sorted({*_named({**SESSION, **SINCE_0_24}, Kind.ACTIVITY)} - _OF_THE_INNER)
    )
    def test_reaches_the_session_through_the_wrapper(self, name: str) -> None:
        """The SDK's wrapper composes some operations itself; ours hands each of them on."""
        methods = [getattr(WorkflowSandboxSession, name)]
        methods += [getattr(WorkflowSandboxSession, f"_{name}")] if name == "read" else []
        if f"super().{name}(" in inspect.getsource(methods[0]):
            methods += [getattr(SandboxSession, name)]
        calls = {
            _last_name(node.func)
            for method in methods
            for node in ast.walk(_parsed(method))
            if isinstance(node, ast.Call) and _is_inner(node.func)
        }

        assert name in calls

    @pytest.mark.parametrize("name", _named(CLIENT, Kind.ACTIVITY))
    def test_of_a_client_is_not_the_sdks(self, name: str) -> None:
        """The SDK's are abstract."""
        assert name in vars(TemporalSandboxClient)

    @pytest.mark.parametrize("name", _named(SESSION, Kind.SETTING))
    def test_is_told_to_the_worker_for_a_setting(self, name: str) -> None:
        """The SDK's own method would keep it in the workflow's process."""
        assert _is_ours(inspect.getattr_static(TemporalSandboxSession, name))


def _is_inner(function: ast.AST) -> bool:
    return isinstance(function, ast.Attribute) and _last_name(function.value) in _INNER


def _parsed(function: Callable[..., object]) -> ast.Module:
    return syntax_tree(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))


class TestReach:
    """What a workflow can call of the SDK's own code never leads into the real session's."""

    def test_ends_before_what_only_a_worker_has(self) -> None:
        """Every method that is inherited from the SDK calls only what is no worker's."""
        worker_only = set(_named(SESSION, Kind.WORKER_ONLY))
        reached: dict[str, set[str]] = {}
        for name in set(SESSION) - worker_only:
            for cls in (TemporalSandboxSession, WorkflowSandboxSession):
                if cls is WorkflowSandboxSession and name in _OF_THE_INNER:
                    continue
                function = inspect.getattr_static(cls, name, None)
                if isinstance(function, property):
                    function = function.fget
                if inspect.isfunction(function) and not _is_ours(function):
                    tree = _parsed(function)
                    called = _asked_of({"self", "_inner"}, tree) & worker_only
                    reached.setdefault(name, set()).update(called, _handed_on(tree))

        assert {} == {name: called for name, called in reached.items() if called}


def _is_ours(function: Callable[..., object]) -> bool:
    return str(inspect.unwrap(function).__module__).startswith("sandbox_core")


def _handed_on(tree: ast.AST) -> set[str]:
    """Return the helpers of the SDK to which the code gives the session itself."""
    return {
        ast.unparse(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and any(isinstance(argument, ast.Name) and argument.id == "self" for argument in node.args)
    }


def _session() -> SandboxSession:
    manifest = Manifest(root="/workspace", entries={"notes.txt": File(content=b"notes")})
    state = UnixLocalSandboxSessionState(
        manifest=manifest, snapshot=NoopSnapshot(id="none"), exposed_ports=(8080,)
    )
    opened = OpenSessionResponse(session=SessionRef(session_id=str(uuid.uuid4()), epoch=1))
    return _client()._session({}, opened, state)


def _client() -> TemporalSandboxClient:
    return TemporalSandboxClient("local")


async def _hook() -> None:
    return


# How to ask for what is more than an attribute.
_ASKED: dict[str, Callable[[SandboxSession], object]] = {
    "__init__": lambda s: _client()._wrap_session(s._inner),
    "set_dependencies": lambda s: s.set_dependencies(s.dependencies),
    "normalize_path": lambda s: s.normalize_path("sub/../notes.txt", for_write=True),
    "_workspace_path_policy": lambda s: s._workspace_path_policy().relative_path("notes.txt"),
    "_workspace_root_path": lambda s: s._workspace_root_path(),
    "describe": lambda s: s.describe(),
    "supports_pty": lambda s: s.supports_pty(),
    "_manifest_base_dir": lambda s: s._manifest_base_dir(),
    "_validate_manifest_application": lambda s: s._inner._validate_manifest_application(),
    "_runtime_has_protected_mount_authority": lambda s: s._runtime_has_protected_mount_authority(),
    "register_pre_stop_hook": lambda s: s.register_pre_stop_hook(_hook),
    "_assert_exposed_port_configured": lambda s: s._inner._assert_exposed_port_configured(8080),
    "_overlapping_mount_relpaths": lambda s: s._overlapping_mount_relpaths(Path("a")),
    "_mount_relpaths_within_workspace": lambda s: s._mount_relpaths_within_workspace(),
    "_workspace_relpaths_overlap": lambda s: s._workspace_relpaths_overlap(Path("a"), Path("a/b")),
    "_next_seq": lambda s: s._next_seq(),
    "_bind_session_to_sinks": lambda s: s._bind_session_to_sinks(),
    "_trace_span_data": lambda s: s._trace_span_data(op="exec"),
    "_apply_trace_finish_data": lambda s: s._apply_trace_finish_data(
        span=None, op="exec", ok=True, data=None, exc=None
    ),
    "serialize_session_state": lambda s: _client().serialize_session_state(s.state),
    "_serialize_session_state": lambda s: _client()._serialize_session_state(s.state),
    "deserialize_session_state": lambda s: _client().deserialize_session_state(
        s.state.model_dump(mode="json")
    ),
    "_wrap_session": lambda s: _client()._wrap_session(s._inner),
    "_resolve_dependencies": lambda s: _client()._resolve_dependencies(),
}
# Of paths as text only.
_HARMLESS = {"fspath", "_path_normpath", "_path_splitroot_ex"}


def _system_calls(function: Callable[[], object]) -> list[str]:
    """Return the functions of the operating system that `function` calls."""
    calls: list[str] = []

    def watch(frame: FrameType, event: str, argument: object) -> None:
        module = getattr(argument, "__module__", None)
        name = getattr(argument, "__name__", "")
        if event == "c_call" and name not in _HARMLESS and module in {"posix", "_io", "_socket"}:
            calls.append(f"{module}.{name} in {frame.f_code.co_name}")

    sys.setprofile(watch)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


class TestPure:
    """What is computed in the workflow asks nothing of the operating system, nor of a worker."""

    @pytest.mark.parametrize("name", _named({**SESSION, **CLIENT}, Kind.PURE))
    def test_does_no_io(self, name: str) -> None:
        """Outside of a workflow there are no activities, so that one would be an error, too."""
        session = _session()
        owner = session if name in SESSION else _client()
        asked: Callable[[SandboxSession], object]
        asked = _ASKED.get(name, lambda _: getattr(owner, name))
        _finish(asked(session))  # The first time may import what the SDK imports late.

        assert [] == _system_calls(lambda: _finish(asked(session)))

    def test_notices_a_look_at_the_file_system(self) -> None:
        """The check can fail: the SDK's own rule for paths asks the host's file system."""
        policy = WorkspacePathPolicy(root="/workspace")

        assert [] != _system_calls(lambda: policy.normalize_path("a", resolve_symlinks=True))


def _finish(result: object) -> None:
    """Run a coroutine that never waits to its end."""
    if asyncio.iscoroutine(result):
        with pytest.raises(StopIteration):
            result.send(None)


def test_a_span_names_the_provider() -> None:
    """And not a module of this package, which is the same for all."""
    assert "local" == _session()._trace_span_data(op="exec")["sandbox.backend"]
