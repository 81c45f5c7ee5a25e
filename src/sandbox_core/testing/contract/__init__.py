"""The contract of providers, as checks that anyone can run.

``sandbox-core check NAME`` runs them, and so does a test class of the provider's own::

    from sandbox_core.testing.contract.pytest_plugin import ProviderContract

    class TestAcme(ProviderContract):
        provider_module = "acme_sandbox"
"""

from sandbox_core.testing.contract.model import LEVELS, Check, Level, NotApplicable, PromiseBroken
from sandbox_core.testing.contract.run import (
    CHECKS,
    Outcome,
    Report,
    run_check,
    run_checks,
    select,
)
from sandbox_core.testing.contract.subject import Backend, Subject

__all__ = [
    "CHECKS",
    "LEVELS",
    "Backend",
    "Check",
    "Level",
    "NotApplicable",
    "Outcome",
    "PromiseBroken",
    "Report",
    "Subject",
    "run_check",
    "run_checks",
    "select",
]
