"""Durable sandboxes for OpenAI Agents SDK agents that run as Temporal workflows.

Import from the part that you are in: `sandbox_core.workflow` in workflows, `sandbox_core.worker`
where a worker is set up, `sandbox_core.providers` in a provider, `sandbox_core.errors` anywhere.
"""

__version__ = "0.1.0"
