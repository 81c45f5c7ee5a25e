"""Finds the workflows and activities that are named as MODULE:ATTR."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox_core.errors import InvalidRequest


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a worker runs, each once, in the order in which it was named."""

    workflows: tuple[type, ...] = ()
    activities: tuple[Callable[..., Any], ...] = ()


def load_targets(names: Sequence[str]) -> Targets:
    """Return the workflows and activities of these names.

    Modules are looked for in the current directory first, as by ``python -m``.

    Args:
        names: Each is MODULE:ATTR, where ATTR is a workflow class, an activity function, or a list
            or tuple of them, and may have dots.

    Raises:
        InvalidRequest: A name is not one of these; the message says which and why.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found = list(dict.fromkeys(each for name in names for each in _load(name)))
    return Targets(
        workflows=tuple(each for each in found if isinstance(each, type) and _is_workflow(each)),
        activities=tuple(each for each in found if callable(each) and _is_activity(each)),
    )


def _load(name: str) -> Iterator[object]:
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise InvalidRequest(f"{name!r}: write MODULE:ATTR, such as app.workflows:Ask")
    try:
        value: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # The user's module may raise anything.
        raise InvalidRequest(
            f"{name!r}: module {module_name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    for attribute in path.split("."):
        if not hasattr(value, attribute):
            near = difflib.get_close_matches(attribute, dir(value), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            owner = getattr(value, "__name__", module_name)
            raise InvalidRequest(f"{name!r}: {owner!r} has no {attribute!r}{hint}")
        value = getattr(value, attribute)
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise InvalidRequest(f"{name!r}: the list is empty")
    for each in values:
        if not (isinstance(each, type) and _is_workflow(each)) and not _is_activity(each):
            raise InvalidRequest(
                f"{name!r}: {each!r:.100} is neither a workflow (a class with @workflow.defn) nor "
                f"an activity (a function with @activity.defn)"
            )
        yield each


# Temporal's decorators set these; its own lookup of definitions is not public.
def _is_workflow(cls: type) -> bool:
    # Of this class: Temporal does not accept a subclass without the decorator.
    return "__temporal_workflow_definition" in vars(cls)


def _is_activity(value: object) -> bool:
    return hasattr(value, "__temporal_activity_definition")
