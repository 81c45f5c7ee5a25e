"""Functions of forked processes in the tests: they report about themselves, or wait."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from sandbox_core.testing import DevServer


def tell(*arguments: str) -> None:
    """Write what a process can know of itself."""
    known = {
        "arguments": arguments,
        "environ": dict(os.environ),
        "temporary": tempfile.gettempdir(),
        "folder": str(Path.cwd()),
        "leads": os.getpid() == os.getsid(0) == os.getpgid(0),
        "modules": sorted(sys.modules),
        "threads": threading.active_count(),
        "open": len(list(Path("/dev/fd").iterdir())),
    }
    sys.stdout.write(f"{json.dumps(known)}\n")
    sys.stderr.write("logged\n")


def fail(code: str) -> None:
    """Exit with a code."""
    sys.exit(int(code))


def wait() -> None:
    """Write the process id of a child in the same group, and wait for a signal."""
    child = subprocess.Popen(["sleep", "600"])
    sys.stdout.write(f"{child.pid}\n")
    sys.stdout.flush()
    signal.pause()


def serve() -> None:
    """Start a dev server, write its port, and wait for a signal."""
    server = DevServer()
    starting = threading.Thread(target=server.start)
    starting.start()
    starting.join()
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    signal.pause()
