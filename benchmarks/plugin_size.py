"""Measures the cost of a provider's distribution: its installed size, and its import time.

    python benchmarks/plugin_size.py e2b runloop

Each is installed with sandbox-core into a new folder, without other vendors' SDKs, and compared
with sandbox-core alone. It prints the megabytes that the distribution adds, the CPU seconds of
importing sandbox-core's worker half, and the CPU seconds that the plugin's import and the vendor's
SDK (imported when the client is created) add; each the median of five processes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMED = """\
import sys, time
sys.path[:] = [sys.argv.pop(1)] + [path for path in sys.path if not path.endswith("-packages")]
began = time.process_time()
for name in sys.argv[1:]:
    __import__(name)
    now = time.process_time()
    print(now - began)
    began = now
"""


def install(folder: Path, *projects: Path) -> float:
    """Install projects into a folder, and return its size in megabytes."""
    uv = Path(sys.executable).parent / "uv"
    # The workspace would have the core installed as an editable project, without its files.
    command = [str(uv), "pip", "install", "--quiet", "--no-sources", "--target", str(folder)]
    command += [*map(str, projects), "--python", sys.executable, "--compile-bytecode"]
    subprocess.run(command, check=True)
    return sum(f.lstat().st_size for f in folder.rglob("*") if not f.is_dir()) / 1e6


def time_imports(folder: Path, *modules: str) -> list[float]:
    """Return the seconds that each import takes after those before it."""
    command = [sys.executable, "-I", "-c", TIMED, str(folder), *modules]
    runs = [
        subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True) for _ in range(6)
    ][1:]
    return [
        statistics.median(column)
        for column in zip(*([float(s) for s in run.stdout.split()] for run in runs), strict=True)
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        alone = install(Path(directory), ROOT)
    print(f"sandbox-core alone: {alone:.0f} MB")
    for name in sys.argv[1:]:
        module = f"sandbox_{name}"
        with tempfile.TemporaryDirectory() as directory:
            size = install(Path(directory), ROOT, ROOT / f"plugins/sandbox-{name}") - alone
            core, plugin, client = time_imports(
                Path(directory), "sandbox_core.worker", module, f"{module}.client"
            )
        print(
            f"sandbox-{name}: +{size:.0f} MB; core {core:.2f} s, plugin +{plugin:.2f} s, "
            f"client +{client:.2f} s"
        )


if __name__ == "__main__":
    main()
