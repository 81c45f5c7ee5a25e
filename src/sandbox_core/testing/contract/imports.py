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

# Imported before the provider.
import sandbox_core.providers
import sandbox_core.worker  # noqa: F401
from sandbox_core.testing.contract.model import PromiseBroken
from sandbox_core.testing.fork_server import fork_server

_LIMIT_S = 60

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
    code, out, err = await _run("report", module, os.environ)
    if code != 0:
        raise PromiseBroken(f"the module cannot be imported: {err.strip().splitlines()[-1:]}")
    return Imported(**json.loads(out.splitlines()[-1]))


async def create_client_with(environ: Mapping[str, str], module: str) -> str:
    """Return the error of ``create_client()`` in an environment; empty if there is none.

    Raises:
        PromiseBroken: The module cannot be imported, or it takes longer than a minute.
    """
    code, out, err = await _run("try_to_create", module, environ)
    if code != 0:
        raise PromiseBroken(f"it cannot be asked: {err.strip()[-300:]}")
    return out.strip()


async def _run(function: str, module: str, environ: Mapping[str, str]) -> tuple[int, str, str]:
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
    return code, texts[0], texts[1]


# --- What the process does ------------------------------------------------------------------------


def report(module: str) -> None:
    """Import a module, call its hook, and write the effects as JSON."""
    before, environ = set(sys.modules), dict(os.environ)
    import_module(module).sandbox_client_provider()
    imported = Imported(
        packages=sorted({name.partition(".")[0] for name in set(sys.modules) - before}),
        threads=[each.name for each in threading.enumerate() if each.name != "MainThread"],
        environ=sorted({name for name, _ in environ.items() ^ os.environ.items()}),
    )
    sys.stdout.write(json.dumps(asdict(imported)))


def try_to_create(module: str) -> None:
    """Write the error of ``create_client()``, if there is one."""

    async def main() -> None:
        try:
            import_module(module).sandbox_client_provider().create_client()
        except ImportError as error:
            sys.stdout.write(f"{NO_MODULE}{error}\n")
        except Exception as error:  # noqa: BLE001 - a plugin boundary: the error is what is asked
            sys.stdout.write(f"{type(error).__name__}: {error}\n")
        sys.stdout.flush()

    asyncio.run(main())
