"""Figures of `bench.py`: their targets, and their presentation.

python benchmarks/rows.py figures.json  # the table of a run, for the README
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from peer_workflows import OURS, PEER, SIDES
from rich.table import Table

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(kw_only=True)
class Row:
    """One figure of a case: of each side, and the floor where there is one; less is better."""

    case: str
    figure: str
    sides: dict[str, float]
    floor: float | None = None
    more_is_better: bool = False
    to_reach: str = ""
    reached: bool | None = None

    def ratio(self) -> float | None:
        """Return how many times as good as the peer this is."""
        ours, peers = self.sides.get(OURS), self.sides.get(PEER)
        if not ours or not peers:
            return None
        return ours / peers if self.more_is_better else peers / ours

    def cells(self) -> list[str]:
        """Return it as it is shown."""
        numbers = (*(self.sides.get(side) for side in SIDES), self.floor, self.ratio())
        shown = ["" if number is None else f"{number:,.2f}" for number in numbers]
        met = {None: "", True: "yes", False: "NO"}[self.reached]
        return [self.case, self.figure, *shown, self.to_reach, met]


COLUMNS = ("case", "figure", *SIDES, "floor", "peer / sandbox-core", "to reach", "reached")


@dataclass(frozen=True)
class Target:
    """What a figure is to reach."""

    text: str
    met: Callable[[Row], bool]


def _against_peer(times: float) -> Callable[[Row], bool]:
    # Where the peer fails there is nothing to be compared with.
    return lambda row: PEER not in row.sides or (row.ratio() or 0) >= times


BELOW_PEER = Target("below the peer's", _against_peer(1))
NOT_ABOVE_PEER = Target("not above the peer's", _against_peer(1))


def times_the_peer(times: float) -> Target:
    """Be so many times as good as the peer."""
    return Target(f"{times} times the peer's", _against_peer(times))


def at_most(limit: float) -> Target:
    """Be no more than a number."""
    return Target(f"at most {limit:g}", lambda row: row.sides[OURS] <= limit)


def times_the_floor(times: float) -> Target:
    """Be no more than so many times the floor."""
    text = "at most the floor" if times == 1 else f"at most {times:g} times the floor"
    return Target(text, lambda row: row.sides[OURS] <= times * (row.floor or 0))


def make_row(
    case: str,
    figure: str,
    sides: dict[str, float],
    floor: float | None = None,
    *,
    target: Target | None = None,
    more_is_better: bool = False,
) -> Row:
    """Return a row, and whether it reaches its target."""
    row = Row(case=case, figure=figure, sides=sides, floor=floor, more_is_better=more_is_better)
    if target is not None:
        row.to_reach, row.reached = target.text, target.met(row)
    return row


@dataclass(frozen=True)
class Cpu:
    """Seconds that a process has used, and that the processes that it has reaped have."""

    own: float
    children: float

    @classmethod
    def of(cls, pid: int) -> Cpu:
        """Return what process `pid` has used so far."""
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        own, system, of_children, system_of_children = map(int, stat[11:15])
        return cls((own + system) / _TICK, (of_children + system_of_children) / _TICK)

    @property
    def all(self) -> float:
        """Both."""
        return self.own + self.children

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.own - other.own, self.children - other.children)


def p95(values: Sequence[float]) -> float:
    """Return what 95 % of the values do not exceed."""
    return quantiles(values, n=20)[-1]


def table(rows: Sequence[Row]) -> Table:
    """Return what is printed after a run."""
    shown = Table(*COLUMNS)
    for row in rows:
        shown.add_row(*row.cells())
    return shown


def markdown(rows: Sequence[Row]) -> str:
    """Return what the README shows; a case is named once."""
    lines, last = [COLUMNS, ("---",) * len(COLUMNS)], ""
    for row in rows:
        case, *rest = row.cells()
        lines.append(("" if case == last else case, *rest))
        last = case
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the table of the run whose figures the file has."""
    print(markdown([Row(**row) for row in json.loads(Path(sys.argv[1]).read_text())]))


if __name__ == "__main__":
    main()
