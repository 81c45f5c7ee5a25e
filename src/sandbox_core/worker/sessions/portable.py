"""Checks that a provider's session state survives the round trip to a workflow."""

from __future__ import annotations

import logging
from weakref import WeakSet

from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.errors import ProviderLoad, SandboxCoreError
from sandbox_core.providers.clashes import qualified_name, registered_name
from sandbox_core.wire.agents_models import dump_state, load_state

logger = logging.getLogger(__name__)

_known: WeakSet[type[SandboxSessionState]] = WeakSet()
_NOT_THE_PROVIDERS = ("manifest", "snapshot")


def check_portable(provider: str, state: SandboxSessionState) -> None:
    """Check that states of this class survive the round trip; each class is checked once.

    A field that changes on the way causes only a warning: nothing may depend on it.

    Raises:
        ProviderLoad: The states do not survive it. Only the provider's author can fix that.
        SandboxCoreError: `dump_state` refused this state.
    """
    cls = type(state)
    if cls in _known:
        return
    which = f"the session state {qualified_name(cls)} of provider {provider!r}"
    if registered_name(cls) is None:
        raise ProviderLoad(
            f'{which} has no `type: Literal["..."] = "..."`: the Agents SDK does not register it, '
            f"so no workflow can read it."
        )
    try:
        loaded = load_state(dump_state(state))
    except SandboxCoreError:
        raise
    except Exception as error:  # A plugin boundary: any error of a provider's model.
        raise ProviderLoad(
            f"{which} cannot be written as JSON and read again: {type(error).__name__}. Keep "
            f"connections and other live objects in the session, not in its state."
        ) from error
    fields = [name for name in cls.model_fields if name not in _NOT_THE_PROVIDERS]
    changed = [name for name in fields if getattr(loaded, name, ...) != getattr(state, name)]
    if type(loaded) is not cls:
        raise ProviderLoad(f"{which} comes back from JSON as a {qualified_name(type(loaded))}.")
    if changed:
        logger.warning(
            "%s comes back from JSON with another %s. Secrets come back as asterisks, and must "
            "not be in workflow histories",
            which,
            ", ".join(changed),
        )
    _known.add(cls)
