"""One fault in the output of ``sandbox-core new``, and the check that detects it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One fault."""

    name: str
    check: str
    file: str = "client.py"
    old: str = ""
    new: str = ""
    methods: str = ""
    """Added to the session's class; `super()` is what was there."""

    without: str = ""
    """A file that is not there."""


def api(name: str, check: str, old: str, new: str) -> Mutant:
    return Mutant(name=name, check=check, file="api.py", old=old, new=new)


def provider(name: str, check: str, old: str, new: str) -> Mutant:
    return Mutant(name=name, check=check, file="__init__.py", old=old, new=new)


def models(name: str, check: str, old: str, new: str) -> Mutant:
    return Mutant(name=name, check=check, file="models.py", old=old, new=new)


def client(name: str, check: str, old: str, new: str) -> Mutant:
    return Mutant(name=name, check=check, old=old, new=new)


def session(name: str, check: str, methods: str) -> Mutant:
    return Mutant(name=name, check=check, methods=methods)
