"""`docs/commands.md`, command by command: each prints what the page shows."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli.command import STDIN
from cli.site import Site
from documented import Block, documented
from temporalio.client import WorkflowHandle
from terminal import Step, pattern, steps
from workflows.visited import Visited

PAGE = "docs/commands.md"
PROJECT = {
    ".gitignore": "*cache*\n",
    "pytest.ini": "[pytest]\npythonpath = src\n",
    "src/shop.py": "def price(items):\n    return sum(items)\n",
    "test_shop.py": """
import shop

def test_none(): assert shop.price([]) == 0
def test_all(): assert shop.total([]) == 0
def test_one(): assert shop.price([1]) == 1
def test_two(): assert shop.price([1, 2]) == 3
""",
}


@dataclass
class Operator:
    """Runs the page's commands in the current directory."""

    site: Site
    folder: Path
    names: dict[str, str]
    """What the page's names stand for here."""

    async def run(self, step: Step) -> str:
        """Run a command that succeeds, and return its output, which is what the page shows."""
        words = step.words
        for name, here in self.names.items():
            words = [word.replace(name, here) for word in words]
        words, piped = _split(words, "|")
        words, read = _split(words, "<")
        stdin = self.folder / read[0] if read else os.devnull
        done = await self.site.run(*words[1:], **{STDIN: str(stdin)})
        assert 0 == done.returncode, done.stderr
        printed = done.stdout
        if piped:
            printed = _output(*piped, text=printed)
        if step.output:
            expected = pattern(step.output, self.names)
            assert expected.fullmatch(printed), f"{expected.pattern}\n{printed}"
        return printed

    async def run_all(self, block: Block) -> list[str]:
        return [await self.run(step) for step in steps(block)]


def _output(*command: str, text: str = "") -> str:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def _split(words: list[str], at: str) -> tuple[list[str], list[str]]:
    index = words.index(at) if at in words else len(words)
    return words[:index], words[index + 1 :]


def quoted(step: Step) -> set[str]:
    """Return the names of the JSON that a comment shows."""
    return set(re.findall(r'"(\w+)"', step.command.partition("#")[2]))


@dataclass
class Repair:
    """A workflow that runs, and its sandbox, with a project in it."""

    operator: Operator
    handle: WorkflowHandle[Visited, None]
    root: Path

    async def exec(self, command: str) -> None:
        await self.handle.execute_update(Visited.exec, command)

    async def end(self) -> None:
        await self.handle.signal(Visited.end)
        await self.handle.result()


@pytest.fixture
def operator(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    folder = tmp_path / "operator"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names = {"docker": "local", "agents": site.queue, "build-7": socket.gethostname()}
    return Operator(site, folder, names)


@pytest.fixture
async def repair(operator: Operator) -> Repair:
    handle, root = await operator.site.visited()
    (root / "src").mkdir()
    for name, content in PROJECT.items():
        (root / name).write_text(content)
    operator.names |= {
        "repair-42": handle.id,
        "0f6b21a4c5d1": str(root),
        "/workspace": str(root),
    }
    return Repair(operator, handle, root)


async def test_doctor(operator: Operator) -> None:
    block = documented(PAGE, "sandbox-core doctor")
    table, report = await operator.run_all(block)

    assert "VERDICT" in table
    (_, with_json) = steps(block)
    found = json.loads(report)
    assert quoted(with_json) == {*found, *found["findings"][0]}


async def test_audit(repair: Repair) -> None:
    run_id = (await repair.handle.describe()).run_id
    repair.operator.names["RUN"] = run_id
    await repair.exec("true")
    block = documented(PAGE, "sandbox-core audit")
    latest, of_run, report = await repair.operator.run_all(block)

    assert latest == of_run
    (*_, with_json) = steps(block)
    assert quoted(with_json) <= json.loads(report)[0].keys()
    await repair.end()


async def test_logs(repair: Repair) -> None:
    await repair.exec("pytest -q")
    await repair.exec("sed -i s/price/total/ src/shop.py")
    await repair.end()

    await repair.operator.run_all(documented(PAGE, "$ sandbox-core logs"))
    await repair.operator.run_all(documented("docs/live-output.md", "sandbox-core logs"))


async def test_show(repair: Repair) -> None:
    # The port may be taken.
    command = "python -m http.server 8000 || sleep 1000"
    await repair.handle.execute_update(Visited.start, command)
    repair.operator.names["python -m http.server 8000"] = command
    await repair.exec("pytest -q")

    await repair.operator.run_all(documented(PAGE, "$ sandbox-core show"))
    await repair.end()


async def test_exec(repair: Repair) -> None:
    def git(*arguments: str) -> str:
        user = ("-c", "user.name=me", "-c", "user.email=me@localhost")
        return _output("git", "-C", str(repair.root), *user, *arguments)

    git("init")
    git("add", ".")
    git("commit", "--message", "The shop")
    shop = repair.root / "src" / "shop.py"
    shop.write_text(PROJECT["src/shop.py"] + "# Prices without tax.\n")
    (repair.operator.folder / "fix.diff").write_text(git("diff"))
    status, tests, apply = steps(documented(PAGE, "$ sandbox-core exec"))
    await repair.operator.run(status)
    await repair.operator.run(tests)
    git("checkout", ".")
    await repair.operator.run(apply)

    assert shop.read_text().endswith("# Prices without tax.\n")
    await repair.end()


async def test_copies_of_files(repair: Repair) -> None:
    root, folder = repair.root, repair.operator.folder
    (root / "report.html").write_text("<p>")
    (root / "log.txt").write_text("".join(f"{n}\n" for n in range(100)))
    (root / "patches").mkdir()
    (folder / "fix.diff").write_text("-\n+\n")
    block = documented(PAGE, "sandbox-core cp 0f6b21a4c5d1:report.html")
    *_, tail = await repair.operator.run_all(block)

    assert "<p>" == (folder / "report.html").read_text()
    assert "-\n+\n" == (root / "patches" / "fix.diff").read_text()
    assert [str(n) for n in range(90, 100)] == tail.split()
    await repair.end()


async def test_copies_of_directories(repair: Repair) -> None:
    root, folder = repair.root, repair.operator.folder
    for source in (root / "report", folder / "site"):
        source.mkdir()
        (source / "index.html").touch()
    await repair.operator.run_all(documented(PAGE, "sandbox-core cp 0f6b21a4c5d1:report "))

    assert (folder / "report" / "index.html").exists()
    assert (root / "site" / "index.html").exists()
    assert (root / "public" / "index.html").exists()
    await repair.end()


async def test_list_and_delete(operator: Operator) -> None:
    _, root = await operator.site.orphan()
    block = documented(PAGE, "sandbox-core ls")
    operator.names["ID"] = str(root)
    table, report, _ = await operator.run_all(block)

    assert "PROVIDER" in table
    (_, with_json, _) = steps(block)
    assert quoted(with_json) == json.loads(report).keys()
    assert not root.exists()


async def test_run(operator: Operator) -> None:
    await operator.run_all(documented(PAGE, "$ sandbox-core run"))


async def test_reap(operator: Operator) -> None:
    """As the guide shows it; the schedule is deleted as it says."""
    schedule = operator.site.client.get_schedule_handle(f"sandbox-core-reap-{operator.site.queue}")
    try:
        await operator.run_all(documented("docs/guide.md", "sandbox-core reap"))
        assert (await schedule.describe()).id == schedule.id
    finally:
        await schedule.delete()


async def test_storage_gc(operator: Operator) -> None:
    """As the guide shows it."""
    storage = operator.folder / "storage"
    storage.mkdir()
    operator.names["s3://bucket/prefix"] = str(storage)
    await operator.run_all(documented("docs/guide.md", "sandbox-core storage gc"))
