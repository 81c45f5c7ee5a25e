"""Measures how long a worker takes to import sandbox-core, and to find and load its providers.

Each figure is the best of several runs, each in a fresh interpreter without cached imports. The
figures alternate, so that other work of the machine affects all of them.

Imports are compared with those that a worker needs in any case: Temporal's worker and the sandbox
part of the Agents SDK. The providers are generated: real wheels with an entry point and their own
option models, installed into a temporary folder on the path. The environment's other distributions
are there too, because discovery must read past them.

    python benchmarks/startup.py --runs 5 --providers 1 20
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BASELINE = ("temporalio.worker", "agents.sandbox")
OURS = ("sandbox_core", "sandbox_core.workflow", "sandbox_core.worker")
PREFIX = "startup-benchmark-"

IMPORT = """
import importlib, json, sys, time

def seconds(modules):
    begin = time.perf_counter()
    for module in modules:
        importlib.import_module(module)
    return time.perf_counter() - begin

*before, last = sys.argv[1:]
first = seconds(before)
rest = seconds([last])
print(json.dumps({"all": first + rest, "last": rest}))
"""

LOAD = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import sandbox_core.worker
from sandbox_core.providers import LoadedProvider, discover, load

begin = time.perf_counter()
found = discover()
discovered = time.perf_counter()
generated = [one for one in found if one.distribution.startswith(sys.argv[2])]
begin_load = time.perf_counter()
results = load(generated)
loaded = time.perf_counter()
assert len(results) == int(sys.argv[3]), results
assert all(isinstance(one, LoadedProvider) for one in results), results
print(json.dumps({"discover": discovered - begin, "load": loaded - begin_load}))
"""

PROVIDER = """
from typing import Literal

from agents.sandbox.session import BaseSandboxClientOptions, SandboxSessionState

from sandbox_core.providers import SandboxClientProvider, hookimpl


class Options(BaseSandboxClientOptions):
    type: Literal["{type}"] = "{type}"
    image: str = "small"
    timeout_s: int = 300


class State(SandboxSessionState):
    type: Literal["{type}"] = "{type}"
    sandbox_id: str


class Provider(SandboxClientProvider[Options]):
    name = "{name}"
    summary = "Generated"
    api_version = 1
    options_type = Options

    def create_client(self):
        raise NotImplementedError("only its loading is measured")


@hookimpl
def sandbox_client_provider():
    return Provider()
"""


@dataclass
class Figure:
    """A line of the table: a program that prints times in seconds, and the least of each."""

    what: str
    program: str
    arguments: tuple[str, ...]
    shown: str
    best: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Run the program once more, in a fresh interpreter."""
        command = [sys.executable, "-I", "-c", self.program, *self.arguments]
        printed = subprocess.run(command, check=True, capture_output=True).stdout
        for key, seconds in json.loads(printed).items():
            self.best[key] = min(seconds, self.best.get(key, seconds))

    def __str__(self) -> str:
        return f"{self.what:42}{self.best[self.shown] * 1000:8.1f} ms"


def imports() -> Iterator[Figure]:
    """Return the figures of the baseline, and of our modules alone and after it."""
    for module in BASELINE:
        yield Figure(f"import {module}", IMPORT, (module,), "all")
    yield Figure("import both", IMPORT, BASELINE, "all")
    for module in OURS:
        yield Figure(f"import {module}", IMPORT, (module,), "all")
    for module in OURS:
        yield Figure(f"import {module}, after both", IMPORT, (*BASELINE, module), "last")


def providers(folder: Path, count: int) -> Iterator[Figure]:
    """Install `count` generated providers and return the figures of discovery and loading."""
    site = folder / f"site-{count}"
    install([wheel(folder, number) for number in range(count)], site)
    for step in ("discover", "load"):
        arguments = (str(site), PREFIX, str(count))
        yield Figure(f"{step}(), {count} generated", LOAD, arguments, step)


def wheel(folder: Path, number: int) -> Path:
    """Write the wheel of one provider and return its path."""
    distribution, name = f"{PREFIX}{number}", f"bench-{number}"
    package = distribution.replace("-", "_")
    info = f"{package}-1.0.dist-info"
    files = {
        f"{package}/__init__.py": PROVIDER.format(name=name, type=f"bench_{number}"),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[sandbox_core.providers]\n{name} = {package}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, content in files.items():
            archive.writestr(inside, content)
    return path


def install(wheels: Sequence[Path], site: Path) -> None:
    """Install wheels into a folder, with uv where there is one, or else with pip."""
    uv = shutil.which("uv")
    tool = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
    command = [*tool, "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*command, *map(str, wheels)], check=True)
    # An installer need not compile, and a worker's second start has compiled modules.
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(site)], check=True)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="fresh interpreters for each figure")
    parser.add_argument(
        "--providers", type=int, nargs="+", default=[1, 20], help="how many to generate"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        figures = list(imports())
        for count in arguments.providers:
            figures += providers(Path(folder), count)
        for _ in range(arguments.runs):
            for figure in figures:
                figure.run()
    python = ".".join(map(str, sys.version_info[:3]))
    others = len({found.name for found in importlib.metadata.distributions()})
    print(f"Python {python}, {others} distributions installed, best of {arguments.runs}\n")
    print(*figures, sep="\n")


if __name__ == "__main__":
    main()
