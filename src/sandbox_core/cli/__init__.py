"""The `sandbox-core` command."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command and end the process with its exit code.

    After a Temporal worker has run, Python 3.11 sometimes aborts during interpreter shutdown, when
    all work is done. `os._exit` preserves the exit code.
    """
    # A fifth of the time of its imports. `commands.running.run` enables it when they are done.
    gc.disable()
    code = 0
    try:
        from sandbox_core.cli.app import app

        app()
    except KeyboardInterrupt:  # During the imports; a command that runs ends by itself.
        code = 130
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # Its reader has had enough, as `head` may.
        code = code or 1
    os._exit(code)
