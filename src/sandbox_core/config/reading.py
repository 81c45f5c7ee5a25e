"""Reads the settings, and says where each comes from and what is wrong."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from sandbox_core.config.settings import (
    CONFIG_VARIABLE,
    FILE_NAME,
    OTHER_VARIABLES,
    PREFIX,
    SETTINGS,
    Settings,
)
from sandbox_core.config.toml_file import KeyPath, TomlFile, UnreadableFile, read_toml
from sandbox_core.errors import ConfigError

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}
_TABLES = frozenset(setting.name.rpartition(".")[0] for setting in SETTINGS) - {""}
_WRITTEN: Mapping[type, str] = {tuple: ", written as a,b", dict: ", written as a=1,b=2"}

_OF_TESTS = f"{PREFIX}TEST_"
_OF_KUBERNETES = re.compile(
    r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$"
)
_URL_OF_KUBERNETES = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with one key or variable. It never contains a value, which may be a secret."""

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return (
            f"{self.where}: {self.what}; {self.fix}" if self.fix else f"{self.where}: {self.what}"
        )


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The settings of a process. What is wrong has no effect, and is one of the problems."""

    settings: Settings
    file: Path | None = None
    """The file that was read."""
    problems: tuple[Problem, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where settings come from that are not defaults: a variable, or a file and line."""

    def named(self, name: str) -> str:
        """Return how errors name a setting: by its variable or, in a file, with its line."""
        setting = _BY_NAME[name]
        origin = self.origins.get(name, setting.variable)
        return origin if origin == setting.variable else f"{origin}: {name}"

    def check(self) -> None:
        """Check that nothing is wrong.

        Raises:
            ConfigError: Something is; the message has one line for each problem.
        """
        if self.problems:
            raise ConfigError("\n".join(map(str, self.problems)))


def load_configuration(environ: Mapping[str, str] = os.environ) -> Configuration:
    """Return the settings.

    Raises:
        ConfigError: The file or a variable is wrong, or is not known.
    """
    configuration = read_configuration(environ)
    configuration.check()
    return configuration


def read_configuration(environ: Mapping[str, str] = os.environ) -> Configuration:
    """Return the settings, with what is wrong.

    Args:
        environ: The environment variables. An empty one counts as not set.
    """
    path, file, problems = _file(environ)
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for result in (*_of_file(file), *_of_variables(environ)):
        if isinstance(result, Problem):
            problems.append(result)
        else:
            values[result.name], origins[result.name] = result.value, result.origin
    return Configuration(
        settings=_settings(values), file=path, problems=tuple(problems), origins=origins
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A valid value."""

    name: str
    value: object
    origin: str


def _file(environ: Mapping[str, str]) -> tuple[Path | None, TomlFile, list[Problem]]:
    named = environ.get(CONFIG_VARIABLE)
    path = Path(named or FILE_NAME)
    nothing = TomlFile(shown=str(path))
    try:
        if not named and not _is_file(path):
            return None, nothing, []
        return path.absolute(), read_toml(path, str(path)), []
    except PermissionError as error:
        fix = f"start in a directory that may be read, or set {CONFIG_VARIABLE}={os.devnull}"
        return (
            path.absolute(),
            nothing,
            [Problem(where=str(path), what=f"{error.strerror}", fix=fix)],
        )
    except UnreadableFile as error:
        is_missing = isinstance(error.__cause__, OSError)
        fix = f"correct or unset {CONFIG_VARIABLE}" if is_missing and named else ""
        return path.absolute(), nothing, [Problem(where=error.where, what=error.reason, fix=fix)]


def _is_file(path: Path) -> bool:
    """Return whether a path is a file; `Path.is_file` hides some errors, depending on the Python.

    A link to nothing, as a failed mount leaves it, counts: it is not the absence of a file.

    Raises:
        OSError: That cannot be known.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISREG(mode) or (stat.S_ISLNK(mode) and not path.is_dir())


def _of_file(file: TomlFile) -> Iterator[_Found | Problem]:
    for path, value in _leaves(file.content):
        name = ".".join(path)
        setting = _BY_NAME.get(name)
        where = file.where(path)
        if setting is not None:
            try:
                yield _Found(name=name, value=setting.parse(value), origin=where)
            except ValidationError as error:
                inner = tuple(str(part) for part in error.errors()[0]["loc"][1:])
                at = file.where((*path, *inner))
                yield Problem(where=at, what=f'"{name}" must be {setting.kind}')
        elif name in _TABLES:
            yield Problem(where=where, what=f'"{name}" must be a table', fix=f"write [{name}]")
        else:
            near = _nearest_key(path)
            fix = f'rename it to "{near}", or remove it' if near else "remove it"
            yield Problem(where=where, what=f'unknown key "{name}"', fix=fix)


def _of_variables(environ: Mapping[str, str]) -> Iterator[_Found | Problem]:
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        text = environ[variable]
        setting = _BY_VARIABLE.get(variable)
        is_other = variable in OTHER_VARIABLES or variable.startswith(_OF_TESTS)
        if is_other or _is_of_kubernetes(variable, text):
            continue
        if setting is None:
            near = _nearest_variable(variable)
            fix = f"rename it to {near}, or unset it" if near else "unset it"
            yield Problem(where=variable, what="unknown variable", fix=fix)
        elif not setting.is_blank(text):
            try:
                yield _Found(name=setting.name, value=setting.parse_text(text), origin=variable)
            except ValidationError:
                written = _WRITTEN.get(type(setting.default), "")
                yield Problem(where=variable, what=f"must be {setting.kind}{written}")


def _leaves(table: Mapping[str, object], prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Yield the keys of a file, without those in the tables of a setting."""
    for key, value in table.items():
        path = (*prefix, key)
        if isinstance(value, dict) and ".".join(path) in _TABLES:
            yield from _leaves(value, path)
        else:
            yield path, value


def _nearest_variable(variable: str) -> str | None:
    # What they have in common would make all of them similar.
    known = {name.removeprefix(PREFIX): name for name in (*_BY_VARIABLE, *OTHER_VARIABLES)}
    near = difflib.get_close_matches(variable.removeprefix(PREFIX), known, n=1)
    return known[near[0]] if near else None


def _nearest_key(path: KeyPath) -> str | None:
    """Return the known key that was probably meant; it may belong in another table."""
    *table, key = path
    siblings = {
        setting.key: setting.name for setting in SETTINGS if setting.name.split(".")[:-1] == table
    } | ({name: name for name in _TABLES} if not table else {})
    elsewhere = {setting.key: setting.name for setting in SETTINGS}
    for keys, cutoff in ((siblings, 0.7), (elsewhere, 0.7), (siblings, 0.5)):
        if near := difflib.get_close_matches(key.replace("-", "_"), keys, n=1, cutoff=cutoff):
            return keys[near[0]]
    return None


def _is_of_kubernetes(variable: str, text: str) -> bool:
    """Return whether Kubernetes sets it, in every pod, for a Service named ``sandbox-core...``."""
    is_port = variable.endswith("_PORT") and _URL_OF_KUBERNETES.match(text) is not None
    return is_port or _OF_KUBERNETES.search(variable) is not None


def _settings(values: Mapping[str, object]) -> Settings:
    nested: dict[str, object] = {}
    for name, value in values.items():
        table, _, key = name.rpartition(".")
        inner = nested.setdefault(table, {}) if table else nested
        assert isinstance(inner, dict)
        inner[key] = value
    return Settings.model_validate(nested)
