"""Whatever is killed and whenever: every line is written once and in order, and nothing is left.

`make chaos` does it for half an hour. ``SANDBOX_CHAOS_MINUTES`` says for how long, and
``SANDBOX_CHAOS_SEED`` with which seed it begins; what is killed depends on the seed, and when
exactly it is hit on the machine.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker_engine import DockerEngine
from docker_fixtures import engine, shared_engine
from faults.chaos import Plan, Report, run

__all__ = ["engine", "shared_engine"]

MINUTES = float(os.environ.get("SANDBOX_CHAOS_MINUTES", "0"))
SEED = os.environ.get("SANDBOX_CHAOS_SEED")
PROVIDERS = ("local", "docker")


def plans(provider: str) -> Iterator[Plan]:
    """Yield what to run: one short round in the ordinary tests, else longer ones for the time."""
    if not MINUTES:
        yield Plan(seed=int(SEED or 1) + PROVIDERS.index(provider), provider=provider)
        return
    seed = int(SEED) if SEED else random.SystemRandom().randrange(10**6)
    until = time.monotonic() + MINUTES * 60 / len(PROVIDERS)
    while time.monotonic() < until:
        yield Plan(seed=seed, provider=provider, workflows=6, workers=3, kills=15)
        seed += 1


@pytest.fixture(params=PROVIDERS)
def backend(request: pytest.FixtureRequest) -> tuple[str, Callable[[Path], list[str]]]:
    """Each provider in turn, and what lists its sandboxes."""
    if request.param == "local":
        return "local", lambda temporary: list(map(str, temporary.glob("sandbox-local-*")))
    docker: DockerEngine = request.getfixturevalue("engine")
    return "docker", lambda _: [str(found.id) for found in docker.client.containers.list(all=True)]


@pytest.mark.chaos
@pytest.mark.timeout(420 + MINUTES * 60)
async def test_every_line_is_written_once_and_in_order(
    backend: tuple[str, Callable[[Path], list[str]]], tmp_path: Path
) -> None:
    provider, sandboxes = backend
    total = Report()
    for number, plan in enumerate(plans(provider)):
        folder = tmp_path / str(number)
        folder.mkdir()
        report = await run(plan, folder, sandboxes)
        total.add(report)
        shown = [f"{provider}, seed {plan.seed}: {report}", *report.violations]
        sys.stdout.write("\n  ".join(shown) + "\n")
    sys.stdout.write(f"{provider}: {total}\n")

    assert total.workers_killed + total.servers_killed > 0
    assert [] == total.violations
