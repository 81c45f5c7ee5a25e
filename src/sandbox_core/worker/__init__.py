"""What a worker imports."""

from sandbox_core.worker.plugin import SandboxPlugin

__all__ = ["SandboxPlugin"]
