"""`sandbox-core new`: writes a provider distribution that passes the contract's checks."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import packages_distributions, requires
from importlib.resources import files
from pathlib import Path
from string import Template

from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions

from sandbox_core import __version__
from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import discover
from sandbox_core.wire.naming import check_provider_name
from sandbox_core.wire.published import PUBLISHED

_TEMPLATE = files(__name__) / "template"

_ALWAYS = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "tests/test_contract.py": "tests/test_contract.py",
    "github/test.yml": ".github/workflows/test.yml",
    "github/publish.yml": ".github/workflows/publish.yml",
}
_EXAMPLE = ("__init__", "models", "client", "api")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The import path of a class: ``module:Class``."""

    module: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse ``module:Class``.

        Raises:
            InvalidRequest: `text` has another form.
        """
        module, _, name = text.partition(":")
        if not name.isidentifier() or not all(map(str.isidentifier, module.split("."))):
            raise InvalidRequest(f"{text!r} names no class; write 'module:Class'")
        return cls(module=module, name=name)

    def check(self, base: type) -> None:
        """Check that the class is a subclass of `base`.

        Raises:
            InvalidRequest: It cannot be imported, or is not such a class.
        """
        text = f"{self.module}:{self.name}"
        try:
            found = getattr(import_module(self.module), self.name)
        except Exception as error:  # A module of somebody else's may raise anything.
            raise InvalidRequest(
                f"{text} cannot be imported here ({type(error).__name__}: {error}); install its "
                "distribution beside sandbox-core, and check the spelling"
            ) from error
        if not (isinstance(found, type) and issubclass(found, base)):
            raise InvalidRequest(f"{text} is not a subclass of {base.__module__}.{base.__name__}")


def write_provider(
    name: str, folder: Path, *, client: str | None = None, options: str | None = None
) -> list[Path]:
    """Write the distribution of a new provider, and return its files.

    Args:
        name: The provider's name.
        folder: The parent of the new folder ``sandbox-{name}``.
        client: An existing client class, ``module:Class``; without it, the distribution contains a
            working example to be replaced piece by piece.
        options: The class of that client's options.

    Raises:
        InvalidProviderName: `name` does not follow the rule for provider names.
        InvalidRequest: A provider of this name is installed or published, the folder exists, only
            one of `client` and `options` is given, or one of them is not such a class.
    """
    check_provider_name(name)
    for candidate in discover():
        if candidate.name == name:
            raise InvalidRequest(f"{name!r} is the name of {candidate} already; choose another")
    if name in PUBLISHED:
        raise InvalidRequest(f"{name!r} is the name of {PUBLISHED[name]} already; choose another")
    if (client is None) != (options is None):
        raise InvalidRequest("--client and --options come together: a client takes its own options")
    target = folder / f"sandbox-{name}"
    if target.exists():
        raise InvalidRequest(f"{target} exists already; choose another name, or remove it")
    package = f"sandbox_{name.replace('-', '_')}"
    values = {
        "name": name,
        "package": package,
        "title": name.replace("-", " ").title(),
        "Title": name.replace("-", " ").title().replace(" ", ""),
        "NAME": name.replace("-", "_").upper(),
        "core_version": _minor(__version__, 0),
        "core_bound": _minor(__version__, 1),
        "agents_requirement": _agents_requirement(),
        "client_requirement": "",
    }
    written = {to: _filled(source, values) for source, to in _ALWAYS.items()}
    if client is None or options is None:
        for module in _EXAMPLE:
            written[f"src/{package}/{module}.py"] = _filled(f"src/{module}.py", values)
    else:
        used, taken = Reference.parse(client), Reference.parse(options)
        used.check(BaseSandboxClient)
        taken.check(BaseSandboxClientOptions)
        values |= {
            "client_module": used.module,
            "client_class": used.name,
            "options_module": taken.module,
            "options_class": taken.name,
            "client_requirement": _requirement(used.module.partition(".")[0]),
        }
        written["pyproject.toml"] = _filled("pyproject.toml", values)
        written[f"src/{package}/__init__.py"] = _filled("src/adapted.py", values)
    written[f"src/{package}/py.typed"] = ""
    for path, content in written.items():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return [target / path for path in written]


def _requirement(package: str) -> str:
    """Return the requirement lines for the distribution of `package`, without guessing its name.

    A distribution with the name of a package may be somebody else's: ``agents`` is.
    """
    owners = sorted(set(packages_distributions().get(package, ())) - {"openai-agents"})
    return "".join(f'\n    "{owner}",' for owner in owners)


def _agents_requirement() -> str:
    """Return the requirement of the Agents SDK that sandbox-core itself has."""
    (requirement,) = (r for r in requires("sandbox-core") or () if r.startswith("openai-agents"))
    return requirement


def _filled(source: str, values: dict[str, str]) -> str:
    template = (_TEMPLATE / f"{source}.tmpl").read_text(encoding="utf-8")
    return Template(template).substitute(values)


def _minor(version: str, more: int) -> str:
    major, minor, *_ = version.split(".")
    return f"{major}.{int(minor) + more}"
