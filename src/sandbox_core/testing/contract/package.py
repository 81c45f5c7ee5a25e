"""Checks a provider's distribution, without its backend."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args, get_origin

import importlib_metadata
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from pydantic import BaseModel, SecretBytes, SecretStr

from sandbox_core.providers import CONTRACT_VERSION, ENTRY_POINT_GROUP
from sandbox_core.providers.checks import methods_of_abilities
from sandbox_core.testing.contract.imports import (
    NO_MODULE,
    Imported,
    create_client_with,
    import_it,
)
from sandbox_core.testing.contract.model import (
    NotApplicable,
    PromiseBroken,
    check,
    expect,
    expect_equal,
)
from sandbox_core.testing.contract.subject import Subject
from sandbox_core.wire.naming import check_provider_name
from sandbox_core.wire.secret_names import SENSITIVE_NAME

_NOT_PROVIDERS = ("abc", "builtins", "sandbox_core", "typing")

_SECRET = re.compile(SENSITIVE_NAME, re.IGNORECASE)
# Fields with the name of a variable, a file and so on contain no secret.
_NAMES_ONE = re.compile(r"(_name|_names|_ref|_id|_env|_var|_path|_file|_limit)$")


def _module(subject: Subject) -> str:
    if subject.module is None:
        raise NotApplicable(
            "the provider is not installed as a distribution: workers do not find it by themselves"
        )
    return subject.module


def _entry_point(subject: Subject) -> importlib_metadata.EntryPoint:
    module = _module(subject)
    entry_point: importlib_metadata.EntryPoint
    for entry_point in importlib_metadata.entry_points(group=ENTRY_POINT_GROUP):
        if entry_point.value == module:
            return entry_point
    raise PromiseBroken(
        f"no installed distribution has an entry point of group {ENTRY_POINT_GROUP!r} with the "
        f"module {module!r}: workers do not find it"
    )


async def _imported(subject: Subject) -> Imported:
    if subject.imported is None:
        subject.imported = await import_it(_module(subject))
    return subject.imported


@check("package", cost="workers do not find the provider")
async def the_entry_point_names_the_provider(subject: Subject) -> None:
    """The distribution has one entry point, with the provider's name and the hook's module."""
    entry_point = _entry_point(subject)

    expect_equal(subject.provider.name, entry_point.name, "the name of the entry point")
    check_provider_name(subject.provider.name)
    expect(":" not in entry_point.value, f"the entry point names {entry_point.value!r}, no module")


@check("package", cost="workers refuse or misuse the provider")
async def it_says_what_it_is(subject: Subject) -> None:
    """Name, summary, contract version and options type are set correctly."""
    provider = subject.provider

    expect_equal(CONTRACT_VERSION, provider.api_version, "api_version")
    expect(
        isinstance(provider.summary, str) and provider.summary.strip() != "", "there is no summary"
    )
    expect("\n" not in provider.summary, "the summary has more than one line")
    expect(len(provider.summary) <= 80, f"the summary has {len(provider.summary)} characters")
    expect(
        isinstance(provider.options_type, type)
        and issubclass(provider.options_type, BaseSandboxClientOptions),
        f"options_type is {provider.options_type!r}",
    )
    for name in ("host_bound", "durable_processes"):
        expect(isinstance(getattr(provider, name), bool), f"{name} is not a bool")


@check("package", cost="every worker loads the vendor's SDK, even if it only runs workflows")
async def importing_it_is_light(subject: Subject) -> None:
    """Importing the module and calling its hook imports no dependency of its own."""
    distribution = _entry_point(subject).dist
    if distribution is None:
        raise NotApplicable(
            "the entry point has no distribution: what importing it loads cannot be told apart"
        )
    imported = await _imported(subject)
    installed = importlib_metadata.packages_distributions()
    required = {
        _canonical(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
        for requirement in distribution.requires or ()
        if "extra ==" not in requirement
    }
    shared = {"openai-agents", "pydantic", "typing-extensions", "temporalio"}
    required -= {name for name in required if name in shared or name.startswith("sandbox-core")}
    heavy = sorted(
        package
        for package in imported.packages
        if required & {_canonical(name) for name in installed.get(package, ())}
    )

    expect(not heavy, f"importing it imports {', '.join(heavy)}: import that in create_client")


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@check("package", cost="installing the provider changes the worker")
async def importing_it_does_nothing(subject: Subject) -> None:
    """Importing the module starts no threads and changes no environment variables."""
    imported = await _imported(subject)

    expect_equal([], imported.threads, "threads that importing it starts")
    expect_equal([], imported.environ, "variables that importing it changes")


@check("package", cost="an incomplete ability is silently ignored")
async def abilities_are_whole(subject: Subject) -> None:
    """Each ability has all its methods, with the contract's arguments."""
    for ability, methods in methods_of_abilities().items():
        there = [name for name in methods if callable(getattr(subject.provider, name, None))]
        if not there:
            continue
        missing = [name for name in methods if name not in there]
        expect(not missing, f"{ability} lacks {', '.join(missing)}")
        for name, promised in methods.items():
            method = getattr(subject.provider, name)
            arguments = _required(promised) - 1  # Without `self`.
            expect_equal(arguments, _required(method), f"arguments of {name}")
            is_async = inspect.iscoroutinefunction(promised)
            expect_equal(is_async, inspect.iscoroutinefunction(method), f"whether {name} is async")


def _required(function: Callable[..., object]) -> int:
    """Return how many positional arguments a function requires."""
    return sum(
        each.default is each.empty
        and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        for each in inspect.signature(function).parameters.values()
    )


@check("package", cost="a misspelled method is never called")
async def no_name_nearly_fits(subject: Subject) -> None:
    """No public method of the provider is a misspelled method of the contract."""
    known = {name for methods in methods_of_abilities().values() for name in methods}
    known |= {"create_client", "default_options"}
    public = {
        name
        for name, value in inspect.getmembers(type(subject.provider), callable)
        if not name.startswith("_") and name not in known
    }
    for name in public:
        for expected in known:
            near = _canonical(name).replace("-", "") == expected.replace("_", "") or (
                _distance(name, expected) <= (1 if len(expected) < 6 else 2)
            )
            expect(not near, f"method {name!r} is nearly {expected!r}, which is never called")


def _distance(left: str, right: str) -> int:
    """Return the edit distance: how many characters must be added, removed or replaced."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


@check("package", cost="options arrive as another class or not at all")
async def options_survive_the_wire(subject: Subject) -> None:
    """Options are registered under a literal type and survive JSON unchanged."""
    kind = subject.provider.options_type
    type_name = _literal(kind)
    try:
        options = subject.provider.default_options()
    except ValueError:
        options = subject.backend.options or None  # type: ignore[assignment]  # it is checked next
    if options is None:
        raise NotApplicable(
            "there are no default options, and `Backend(options=...)` is not given: users must "
            "pass options, and nobody has tried whether they survive the wire"
        )
    payload = json.loads(options.model_dump_json())
    parsed = BaseSandboxClientOptions.parse(payload)

    expect_equal(type_name, payload.get("type"), "the type in the JSON of the options")
    expect_equal(kind, type(parsed), "the class that the registered type has")
    expect_equal(payload, json.loads(parsed.model_dump_json()), "options after JSON")


def _literal(model: type[BaseModel]) -> str:
    field = model.model_fields.get("type")
    expect(field is not None, f"{model.__name__} has no field `type`")
    assert field is not None
    annotation = field.annotation
    expect(
        get_origin(annotation) is Literal and get_args(annotation) == (field.default,),
        f"{model.__name__}.type is not a Literal with one value: {annotation!r}",
    )
    return str(field.default)


@check("package", cost="states of running workflows cannot be read or are another provider's")
async def states_are_registered(subject: Subject) -> None:
    """The client's session state is registered with its own class, under a literal type."""
    kinds = _state_types(subject)
    expect(
        kinds != [],
        "importing the module registers no subclass of SandboxSessionState: one is registered by "
        'its `type: Literal["..."] = "..."`',
    )
    for kind in kinds:
        type_name = _literal(kind)
        registered = SandboxSessionState._subclass_registry.get(type_name)
        expect_equal(kind, registered, f"the class that is registered for {type_name!r}")


def _state_types(subject: Subject) -> list[type[SandboxSessionState]]:
    """Return the state classes in the modules of the provider and of the client's classes."""
    classes = [type(subject.provider), *type(subject.client).__mro__]
    packages = {
        kind.__module__ if kind.__module__.startswith("agents.") else kind.__module__.split(".")[0]
        for kind in classes
        if kind is not BaseSandboxClient and kind.__module__.split(".")[0] not in _NOT_PROVIDERS
    }
    return [
        kind
        for kind in SandboxSessionState._subclass_registry.values()
        if kind.__module__ in packages or kind.__module__.split(".")[0] in packages
    ]


@check("package", cost="credentials enter histories")
async def options_and_states_have_no_secrets(subject: Subject) -> None:
    """Neither options nor state have a field for a credential: both enter histories."""
    kind = subject.provider.options_type
    for model in (kind, *_state_types(subject)):
        for name, field in model.model_fields.items():
            text = str(field.annotation)
            secret = any(each.__name__ in text for each in (SecretStr, SecretBytes))
            expect(not secret, f"{model.__name__}.{name} is a Secret: it arrives as '**********'")
            ours = model.__module__.partition(".")[0] != "agents"
            named = _SECRET.search(name) and not _NAMES_ONE.search(name)
            expect(
                not (ours and named),
                f"{model.__name__}.{name} looks like a credential: read it in create_client",
            )


@check("package", cost="a worker without credentials does not say which variable is missing")
async def a_missing_credential_is_named(subject: Subject) -> None:
    """Without credentials, `create_client` works or names the missing variable."""
    keep = (
        "PATH",
        "HOME",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "LANG",
        "TMPDIR",
        "SYSTEMROOT",
        "LD_LIBRARY_PATH",
    )
    environ = {name: os.environ[name] for name in keep if name in os.environ}
    error = await create_client_with(environ, _module(subject))
    if not error:
        return

    needs = error.partition(NO_MODULE)[2]
    if needs and "pip install" not in needs:
        raise NotApplicable(
            f"create_client() lacks a module, so nobody sees what it says of credentials: {needs}"
        )
    named = re.search(r"\b[A-Z][A-Z0-9]+_[A-Z0-9_]+\b|\bpip install\b|\bapt\b", error)
    expect(named is not None, f"the error names no variable and no command: {error[:300]!r}")


@check("package", cost="type checkers see the provider as Any")
async def it_is_typed(subject: Subject) -> None:
    """The package has a `py.typed` file."""
    module = sys.modules[_module(subject)]
    file = module.__file__
    if file is None or Path(file).name != "__init__.py":
        raise NotApplicable(
            "the provider's module is not a package: type checkers see the provider as Any"
        )

    expect((Path(file).parent / "py.typed").is_file(), "there is no py.typed beside it")
