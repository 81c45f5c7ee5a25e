"""Tools for tests of workflows and of providers, such as a real Temporal dev server."""

from sandbox_core.testing.dev_server import DevServer

__all__ = ["DevServer"]
