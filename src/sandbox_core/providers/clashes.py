"""Finds session state classes that two distributions register under one name.

The Agents SDK silently keeps the last one imported, and decodes the other's states as that class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal, get_origin

from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.wire.subclasses import subclasses_of


def state_clashes() -> Mapping[str, list[type[SandboxSessionState]]]:
    """Return the names claimed by several classes, with the classes; the SDK's own comes first."""
    claims: dict[str, dict[str, type[SandboxSessionState]]] = defaultdict(dict)
    for cls in subclasses_of(SandboxSessionState):
        name = registered_name(cls)
        if name is not None:
            claims[name].setdefault(qualified_name(cls), cls)
    return {
        name: sorted(classes.values(), key=lambda cls: (not is_sdk(cls), qualified_name(cls)))
        for name, classes in claims.items()
        if len(classes) > 1
    }


def unregistered_states(package: str) -> list[type[SandboxSessionState]]:
    """Return a package's leaf classes that the SDK does not register."""
    return [
        cls
        for cls in subclasses_of(SandboxSessionState)
        if cls.__module__.partition(".")[0] == package
        and registered_name(cls) is None
        and not cls.__subclasses__()
    ]


def registered_name(cls: type[SandboxSessionState]) -> str | None:
    """Return the name under which the SDK registers a class, if it does."""
    field = cls.model_fields.get("type")
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    return field.default if isinstance(field.default, str) and field.default else None


def is_sdk(cls: type[Any]) -> bool:
    """Return whether a class is the Agents SDK's own."""
    return cls.__module__.partition(".")[0] == "agents"


def qualified_name(cls: type[Any]) -> str:
    """Return a class's module and qualified name."""
    return f"{cls.__module__}.{cls.__qualname__}"
