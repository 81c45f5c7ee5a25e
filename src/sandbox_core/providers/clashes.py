"""Classes of session states that two distributions register under one name.

The Agents SDK keeps the one that was imported last, without a word: the states of the other are
then read as something that they are not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_origin

from agents.sandbox.session.sandbox_session_state import SandboxSessionState


def state_clashes() -> Mapping[str, list[type[SandboxSessionState]]]:
    """Return the names that several classes claim, with these classes, the SDK's own first."""
    claims: dict[str, dict[str, type[SandboxSessionState]]] = defaultdict(dict)
    for cls in _subclasses(SandboxSessionState):
        name = registered_name(cls)
        if name is not None:
            claims[name].setdefault(qualified_name(cls), cls)
    return {
        name: sorted(classes.values(), key=lambda cls: (not is_sdk(cls), qualified_name(cls)))
        for name, classes in claims.items()
        if len(classes) > 1
    }


def unregistered_states(package: str) -> list[type[SandboxSessionState]]:
    """Return the classes of a package that the SDK does not register, and that no other extends."""
    return [
        cls
        for cls in _subclasses(SandboxSessionState)
        if cls.__module__.partition(".")[0] == package
        and registered_name(cls) is None
        and not cls.__subclasses__()
    ]


def registered_name(cls: type[SandboxSessionState]) -> str | None:
    """Return the name under which the SDK registers a class, as it finds it."""
    field = cls.model_fields.get("type")
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    return field.default if isinstance(field.default, str) and field.default else None


def is_sdk(cls: type[Any]) -> bool:
    """Return whether a class is the Agents SDK's own."""
    return cls.__module__.partition(".")[0] == "agents"


def qualified_name(cls: type[Any]) -> str:
    """Return the name by which a class is imported."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _subclasses(cls: type[SandboxSessionState]) -> Iterator[type[SandboxSessionState]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
