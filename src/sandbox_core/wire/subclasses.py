"""Finds the classes that derive from one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

_T = TypeVar("_T")


def subclasses_of(cls: type[_T]) -> Iterator[type[_T]]:
    """Yield the classes that derive from `cls`, directly or not, each before its own subclasses."""
    for subclass in cls.__subclasses__():
        yield subclass
        yield from subclasses_of(subclass)
