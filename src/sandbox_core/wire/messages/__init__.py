"""Request and response models of the operations on sessions, and how bytes travel.

A request or a response crosses the wire as the plain JSON object of its model with the defaults
left out, so that any data converter carries it unchanged; a changed default is therefore a changed
contract. Models ignore fields that they do not know: an old worker understands a newer workflow.

Bytes that are data (a file, an archive, a workspace) are not in the model: they are the second
argument of the activity, or its whole result, raw. Output of commands is text where it is valid
UTF-8, so that the Temporal UI can show it.
"""

# One name for all of them: `m.ExecRequest`. A new message needs no line here.
# ruff: noqa: F403

from __future__ import annotations

from sandbox_core.wire.messages.base import *
from sandbox_core.wire.messages.commands import *
from sandbox_core.wire.messages.files import *
from sandbox_core.wire.messages.lifecycle import *
from sandbox_core.wire.messages.reap import *
from sandbox_core.wire.messages.skills import *
from sandbox_core.wire.messages.workspace import *
