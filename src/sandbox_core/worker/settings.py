"""Checks the arguments of `SandboxPlugin`, so that a wrong one is reported where it is passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path, PurePath

from sandbox_core.providers.registry import Provider


def allowed_folders(folders: Iterable[str | Path]) -> tuple[Path, ...]:
    """Return the directories from which manifests may copy files.

    Raises:
        TypeError: `folders` is a single directory, whose characters would be taken for directories,
            or an item is not a directory.
    """
    if isinstance(folders, str | PurePath):
        raise TypeError(
            f"local_sources takes a collection of directories: pass "
            f"local_sources=[{str(folders)!r}]"
        )
    found = tuple(folders)
    for folder in found:
        if not isinstance(folder, str | PurePath) or not str(folder).strip():
            raise TypeError(f"local_sources has {folder!r}, which is not the path of a directory")
    return tuple(Path(folder).absolute() for folder in found)


def own_providers(providers: Iterable[Provider]) -> tuple[Provider, ...]:
    """Return the application's own providers.

    Raises:
        TypeError: `providers` is not a collection, or an item is a name or a class.
    """
    if isinstance(providers, str) or not isinstance(providers, Iterable):
        raise TypeError(f"providers takes a collection of providers, not {providers!r}")
    found = tuple(providers)
    for provider in found:
        if isinstance(provider, str | type) or not callable(
            getattr(provider, "create_client", None)
        ):
            raise TypeError(
                f"providers has {provider!r}, which is not an instance of SandboxClientProvider. "
                f"Installed ones need not be passed; SANDBOX_CORE_PROVIDERS chooses among them."
            )
    return found


def check_mapping(name: str, values: Mapping[str, object], kind: type) -> None:
    """Check that a setting maps provider names to values of a type.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} is {values!r}; it must be a dict with names of providers as keys")
    for key, value in values.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{name}[{key!r}] is {value!r}; it must be of type {kind.__name__}")


def check_function(name: str, value: object) -> None:
    """Check that a setting is None or can be called.

    Raises:
        TypeError: It is something else.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name} is {value!r}; it must be a function")


def check_flag(name: str, value: object) -> None:
    """Check that a setting is True or False.

    Raises:
        TypeError: It is something else, such as a text that Python would take for True.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it must be True or False")


def check_bytes(name: str, value: int) -> None:
    """Check that a limit is a positive number of bytes.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is less than 1.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it must be a number of bytes of type int")
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be 1 or more")


def check_storage(url: str | None, patience: timedelta, threshold: int | None) -> None:
    """Check the types of the storage's settings; the URL itself is checked elsewhere.

    Raises:
        TypeError: A setting has the wrong type.
        ValueError: The patience is negative.
    """
    if url is not None and not isinstance(url, str):
        raise TypeError(f"storage is {url!r}; it must be a str, a URL or the path of a directory")
    if threshold is not None and (not isinstance(threshold, int) or isinstance(threshold, bool)):
        raise TypeError(f"storage_threshold is {threshold!r}; it must be an int")
    if not isinstance(patience, timedelta):
        raise TypeError(f"storage_patience is {patience!r}; it must be a timedelta")
    if patience < timedelta():
        raise ValueError(f"storage_patience is {patience}; it must not be negative")
