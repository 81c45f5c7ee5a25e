"""Makes the context of deploy/Dockerfile, build/image, of the wheels in dist/: ``make image``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from projects import ROOT, projects


def constraints() -> str:
    """Return the exact versions of all distributions, and of all that they depend on.

    Raises:
        subprocess.CalledProcessError: uv.lock cannot be read.
    """
    selected = ("--all-packages", "--all-extras", "--no-dev", "--no-emit-workspace")
    plain = ("--quiet", "--frozen", "--no-hashes", "--no-annotate", "--no-header")
    locked = subprocess.run(
        [sys.executable, "-m", "uv", "export", *plain, *selected, "--project", ROOT],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return locked + "".join(f"{project.name}=={project.version}\n" for project in projects())


def main() -> int:
    """Make the context."""
    context = ROOT / "build" / "image"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    for wheel in (ROOT / "dist").glob("*.whl"):
        shutil.copy(wheel, context)
    Path(context / "constraints.txt").write_text(constraints(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
