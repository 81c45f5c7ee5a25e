"""Observes the effects of importing a provider's module, in a process that has not imported it.

The process is forked from one that has imported only what every worker imports.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING

# Imported before the provider.
import sandbox_core.providers
import sandbox_core.worker  # noqa: F401
from sandbox_core.testing.contract.model import PromiseBroken, raised_at
from sandbox_core.testing.fork_server import fork_server

if TYPE_CHECKING:
    from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions

    from sandbox_core.providers import SandboxClientProvider

_LIMIT_S = 60

_NOT_IMPORTED = 3
"""The exit code of a process whose last line says why the module cannot be imported."""

NO_MODULE = "needs a module: "
"""The beginning of the error of a `create_client` that lacks a module."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The effects of importing a module and calling its hook."""

    packages: list[str]
    """The top-level packages that were imported."""

    threads: list[str]
    """The names of the threads that were started."""

    environ: list[str]
    """The environment variables that were changed."""


async def import_it(module: str) -> Imported:
    """Import a provider's module, and call its hook.

    Raises:
        PromiseBroken: It cannot be imported, or takes longer than a minute.
    """
    return Imported(**json.loads((await _run("report", module, os.environ)).splitlines()[-1]))


async def create_client_with(environ: Mapping[str, str], module: str) -> str:
    """Return the error of ``create_client()`` in an environment; empty if there is none.

    Raises:
        PromiseBroken: The module cannot be imported, or it takes longer than a minute.
    """
    return (await _run("try_to_create", module, environ)).strip()


async def _run(function: str, module: str, environ: Mapping[str, str]) -> str:
    """Return the output of one of the functions below, in the process that has not imported it."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = await asyncio.to_thread(
            lambda: fork_server().start(
                f"{__name__}:{function}", module, env=environ, stdout=out, stderr=err
            )
        )
        try:
            code = await asyncio.wait_for(asyncio.to_thread(process.wait), _LIMIT_S)
        except asyncio.TimeoutError:
            raise PromiseBroken(f"it took longer than {_LIMIT_S} s") from None
        finally:
            process.kill()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if code == _NOT_IMPORTED:
        raise PromiseBroken(texts[1].strip().splitlines()[-1])
    if code != 0:
        raise PromiseBroken(
            f"importing {module} ended the process ({code}): {texts[1].strip()[-300:]}"
        )
    return texts[0]


# --- What the process does ------------------------------------------------------------------------


def report(module: str) -> None:
    """Import a module, call its hook, and write the effects as JSON."""
    before, environ = set(sys.modules), dict(os.environ)
    _provider_of(module)
    imported = Imported(
        packages=sorted({name.partition(".")[0] for name in set(sys.modules) - before}),
        threads=[each.name for each in threading.enumerate() if each.name != "MainThread"],
        environ=sorted({name for name, _ in environ.items() ^ os.environ.items()}),
    )
    sys.stdout.write(json.dumps(asdict(imported)))


def try_to_create(module: str) -> None:
    """Write the error of ``create_client()``, if there is one."""

    async def main() -> None:
        provider = _provider_of(module)
        try:
            provider.create_client()
        except ImportError as error:
            sys.stdout.write(f"{NO_MODULE}{error}\n")
        except Exception as error:  # noqa: BLE001 - a plugin boundary: the error is what is asked
            sys.stdout.write(f"{type(error).__name__}: {error}\n")
        sys.stdout.flush()

    asyncio.run(main())


def _provider_of(module: str) -> SandboxClientProvider[BaseSandboxClientOptions]:
    """Import a module and return its hook's provider; end the process if that fails."""
    try:
        provider: SandboxClientProvider[BaseSandboxClientOptions] = import_module(
            module
        ).sandbox_client_provider()
    except Exception as error:  # noqa: BLE001 - a plugin boundary: the author's own code
        sys.stderr.write(f"\n{_why(module, error)}\n")
        sys.exit(_NOT_IMPORTED)
    return provider


def _why(module: str, error: Exception) -> str:
    package = module.partition(".")[0]
    place = raised_at(error, {package})
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        fix = "Install the distribution that has it"
    elif isinstance(error, ModuleNotFoundError):
        fix = (
            f"Add the distribution of {error.name} to the dependencies in pyproject.toml; import a "
            f"vendor's SDK in create_client"
        )
    else:
        fix = f"See the whole traceback: python -c 'import {module} as it; "
        fix += "it.sandbox_client_provider()'"
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{module} cannot be imported: {what}{f', at {place}' if place else ''}. {fix}"
