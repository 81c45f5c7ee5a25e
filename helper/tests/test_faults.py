"""The helper's processes are killed at every point of a command's life, by a special build.

Whatever is killed at any point, the command runs once and its result is returned, or its outcome is
reported as unknown; and every caller gets the same answer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from driver import Fields, Helper, NoAnswer

FOLDER = Path(__file__).parents[1]

# Where it is killed; what is told afterwards; how often the command may have run.
POINTS = {
    "client:before-lock": ("exited", {1}),
    "client:after-send": ("exited", {1}),
    "client:before-answer": ("exited", {1}),
    "resident:before-lock": ("exited", {1}),
    "resident:after-marker": ("lost", {0}),
    "resident:after-fork": ("exited", {1}),
    "resident:before-answer": ("exited", {1}),
    "keeper:after-fork": ("lost", {0}),
    "keeper:before-exec": ("lost", {0, 1}),
    "keeper:after-exit": ("lost", {1}),
    "keeper:before-record": ("lost", {1}),
    "keeper:in-record": ("lost", {1}),
    "keeper:after-record": ("exited", {1}),
    "keeper:before-answer": ("exited", {1}),
}


# They share the folder in which the helper is built with faults.
pytestmark = pytest.mark.xdist_group("helper-faults")


@pytest.fixture(scope="module", params=["faulty", "sanitized"])
def binary(request: pytest.FixtureRequest) -> Path:
    if not shutil.which("cc") or not shutil.which("make"):
        pytest.skip("there is no C compiler to build the faults into the helper")
    kind = str(request.param)
    built = FOLDER / "build" / kind
    made = subprocess.run(
        ["make", "-s", "-C", FOLDER, f"build/{kind}"], capture_output=True, check=False
    )
    if made.returncode and kind == "sanitized":
        pytest.skip(f"this compiler has no sanitizers: {made.stderr.decode()[-200:]}")
    assert made.returncode == 0, made.stderr.decode()
    return built


@pytest.fixture
def helper(binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Helper]:
    log = tmp_path / "sanitizer"
    options = f"detect_leaks=0:log_path={log}"
    monkeypatch.setenv("ASAN_OPTIONS", options)
    monkeypatch.setenv("UBSAN_OPTIONS", options)
    made = Helper(binary, tmp_path / "state")
    yield made
    assert b"done" == made.exec("stop")["word"]
    assert "" == "".join(path.read_text() for path in tmp_path.glob("sanitizer.*"))


def attempt(helper: Helper, verb: str, fields: Fields, *, by_socket: bool) -> bytes:
    """Ask as often as a caller would; return the last word."""
    for _ in range(5):
        try:
            answer = helper.ask(verb, fields) if by_socket else helper.exec(verb, fields)
        except (NoAnswer, ConnectionError, FileNotFoundError):
            if "fault" in fields:
                return b"killed"
            by_socket = False  # There may be no resident, and a client makes one.
            continue
        return b"exited" if answer.get("end") == b"1" else answer["word"]
    return b"nothing"


@pytest.mark.parametrize("verb", ["run", "start", "run by a keeper that rests"])
@pytest.mark.parametrize(
    ("point", "how"),
    [
        (point, how)
        for point in POINTS
        for how in ("socket", "exec")
        if how == "exec" or not point.startswith("client:")  # By socket there is no client.
    ],
)
def test_killed_at(helper: Helper, tmp_path: Path, point: str, how: str, verb: str) -> None:
    helper.exec("boot")
    if verb.endswith("rests"):
        verb = "run"
        helper.exec(verb, {**request(tmp_path), "key": "before", "arg": ["true"]})
    if point == "resident:before-answer":  # It answers itself once there is a record.
        helper.exec(verb, request(tmp_path))

    attempt(helper, verb, {**request(tmp_path), "fault": point}, by_socket=how == "socket")
    told = [attempt(helper, verb, request(tmp_path), by_socket=how == "socket") for _ in range(3)]

    word, counts = POINTS[point]
    assert [word.encode()] * 3 == told
    assert runs(tmp_path) in counts


@pytest.mark.parametrize("point", ["resident:after-fork", "keeper:before-record"])
def test_killed_while_it_runs(helper: Helper, tmp_path: Path, point: str) -> None:
    """Eight ask at once; whoever is killed, they are told the same."""
    fields = {**request(tmp_path, "sleep 0.3; "), "fault": point}
    helper.exec("boot")

    with ThreadPoolExecutor(8) as pool:
        told = set(pool.map(lambda _: attempt(helper, "run", fields, by_socket=False), range(8)))

    assert ({b"exited"} if point == "resident:after-fork" else {b"lost"}) == told
    assert 1 == runs(tmp_path)


def request(tmp_path: Path, first: str = "") -> Fields:
    script = f"{first}echo run >> {tmp_path}/runs; echo out; exit 3"
    return {
        "key": "k",
        "arg": ["sh", "-c", script],
        "env": [f"PATH={os.environ['PATH']}"],
        "wait": 9000,
    }


def runs(tmp_path: Path) -> int:
    path = tmp_path / "runs"
    return path.read_text().count("run\n") if path.exists() else 0
