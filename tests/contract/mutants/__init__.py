"""Broken providers: each is the output of ``sandbox-core new`` with one injected fault."""

from contract.mutants.commands import COMMANDS
from contract.mutants.durable import DURABLE
from contract.mutants.files import FILES
from contract.mutants.labels import LABELS
from contract.mutants.lifecycle import LIFECYCLE
from contract.mutants.one import Mutant
from contract.mutants.package import PACKAGE
from contract.mutants.saved import SAVED
from contract.mutants.streams import RIGHT_STREAMS, STREAMS
from contract.mutants.terminals import TERMINALS, TERMINALS_METHODS
from contract.mutants.workspace import WORKSPACE

__all__ = ["MUTANTS", "RIGHT_STREAMS", "TERMINALS_METHODS", "Mutant"]

MUTANTS = (
    *(*PACKAGE, *COMMANDS, *STREAMS, *TERMINALS, *FILES, *WORKSPACE),
    *(*LIFECYCLE, *LABELS, *SAVED, *DURABLE),
)
