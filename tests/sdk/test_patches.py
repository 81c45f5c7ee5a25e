"""The Agents SDK's private names that we use exist, and are replaced only for us, in one place."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import agents
import pytest
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from syntax import syntax_tree

import sandbox_core
from sandbox_core.workflow.agents_patches import PATCHES, Patch

_CORE = Path(sandbox_core.__file__).parent
_SDK = Path(agents.__file__).parent

PRIVATE_NAMES_ALLOWED = {
    "providers/remote.py": "a backend's session overrides what the SDK leaves to it",
    "storage/snapshots.py": "a client is given the store that its sessions take snapshots from",
    "testing/contract/package.py": "looks whether a class is registered",
    "wire/agents_models.py": "manifests and states as JSON",
    "wire/mount_credentials.py": "which fields of a mount are credentials",
    "worker/agents_patches.py": "what is replaced on a worker",
    "worker/handlers/skills.py": "a source of skills that looks anywhere on the worker's disk",
    "worker/manifest_batches.py": "what replaces the SDK's own way to apply entries",
    "worker/sdk_session.py": "everything else that is asked of a session",
    "worker/sessions/archives.py": "what replaces the SDK's own way to archive a workspace",
    "workflow/agents_patches.py": "what is replaced in workflows",
    "workflow/lending.py": "a session that is lent does not close what it depends on",
    "workflow/session.py": "the session's surface",
    "workflow/session_commands.py": "its methods for commands",
    "workflow/session_files.py": "its methods for files",
    "workflow/session_wrapper.py": "the surface of the wrapper around it",
}
"""The modules of the core that may use what the SDK names with an underscore, and for what."""

if hasattr(BaseSandboxSession, "_write_new_file"):  # From 0.24 on; before, it is a name of ours.
    PRIVATE_NAMES_ALLOWED["testing/contract/whole_workflows.py"] = "creates files as the SDK does"

_MISSING = """
import importlib, json, operator, sys
for module, owner, name in json.loads(sys.argv[1]):
    at = importlib.import_module(module)
    at = operator.attrgetter(owner)(at) if owner else at
    if not hasattr(at, name):
        print(module, owner, name)
"""


def _named(patch: Patch) -> str:
    return f"{patch.owner.__name__}.{patch.name}"


class TestReplaced:
    """Every name that is replaced where workflows run."""

    def test_is_a_name_of_the_sdk(self) -> None:
        """Asked of a Python in which nothing is replaced: a release that renames one fails here."""
        names = [
            (patch.owner.__name__, "", patch.name)
            if inspect.ismodule(patch.owner)
            else (patch.owner.__module__, patch.owner.__qualname__, patch.name)
            for patch in PATCHES
        ]

        done = subprocess.run(
            [sys.executable, "-c", _MISSING, json.dumps(names)],
            capture_output=True,
            text=True,
            check=True,
        )

        assert "" == done.stdout

    @pytest.mark.parametrize("patch", PATCHES, ids=_named)
    def test_has_the_replacement_and_a_reason(self, patch: Patch) -> None:
        assert inspect.getattr_static(patch.owner, patch.name) is patch.replacement
        assert patch.reason


class TestPrivateName:
    """What the SDK names with an underscore may change with every release of it."""

    def test_is_used_in_few_modules_only(self) -> None:
        """And in each of them: one that uses none need not be allowed to."""
        used = {*_imported(), *_taken(), *_overridden()}

        assert [] == sorted(use for use in used if use.split(":")[0] not in PRIVATE_NAMES_ALLOWED)
        assert {*PRIVATE_NAMES_ALLOWED} == {use.split(":")[0] for use in used}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _trees(root: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(root.rglob("*.py")):
        yield path.relative_to(root).as_posix(), syntax_tree(path)


@functools.cache
def _defined(root: Path) -> set[str]:
    """Return the private names that a package gives to functions, classes and attributes."""
    names: set[str] = set()
    for _, tree in _trees(root):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif _is_set_on_self(node):
                names.add(node.attr)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
    return {name for name in names if _is_private(name)}


def _imported() -> Iterator[str]:
    for module, tree in _trees(_CORE):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "agents":
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                yield from (f"{module}:{name}" for name in names if _is_private(name))


def _taken() -> Iterator[str]:
    """Return where an attribute is taken that only the SDK, or an override of it, can define."""
    overridden = {use.split(":")[1] for use in _overridden()}
    theirs = _defined(_SDK) - (_defined(_CORE) - overridden)
    for module, tree in _trees(_CORE):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in theirs and not _is_self(node.value):
                yield f"{module}:{node.attr}"


def _is_set_on_self(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return (
        isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value)
    )


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def _overridden() -> Iterator[str]:
    """Return where a class of ours defines a method or an attribute of its base in the SDK."""
    for found in pkgutil.walk_packages([str(_CORE)], "sandbox_core."):
        if ".demo.project" in found.name or found.name.endswith("__main__"):
            continue
        for cls in vars(importlib.import_module(found.name)).values():
            if inspect.isclass(cls) and cls.__module__ == found.name:
                theirs = [base for base in cls.__mro__ if base.__module__.startswith("agents")]
                for name in vars(cls):
                    if name != "_abc_impl" and _is_private(name) and _is_in(theirs, name):
                        yield f"{_path(found.name)}:{name}"


def _is_in(classes: list[type], name: str) -> bool:
    return any(name in vars(cls) for cls in classes)


def _path(module: str) -> str:
    relative = module.removeprefix("sandbox_core.").replace(".", "/")
    return f"{relative}/__init__.py" if (_CORE / relative).is_dir() else f"{relative}.py"
