"""A run on the terminal, as `status --watch` shows it: its figures, its nodes, what is wrong.

    12:00:31  run h100-sweep: measuring for 12 min
      cells     1,234 of 20,000 (6 %), 18,766 due
      rate      56.7 cells/s, 6 min left, lag 0.7 s
      agents    8 measuring, 1 waiting
      model     7 on all agents, error on fresh samples 4.1 %
      failures  3 (2 timeout, 1 crashed)

     node       devices            cells/s  busy  failed  model  agents
     host-1a2b  8 x H100 80GB HBM3    56.7  98 %       3      7  1 waiting

    host-1a2b/gpu3 waits: 2 other process(es) hold this GPU

Nodes with trouble come first where not all have room. Reads nothing, and knows no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.fleet.live import ENDED, FAILED, MEASURING, STOPPED, LiveRun
from coordinator.live_nodes import NodeRow, nodes_of
from coordinator.terminal import duration

SILENT_S: Final = 15.0
"""A run that has noted nothing for this time is named: it notes its state every two seconds."""
ENDS: Final = {
    ENDED: "ended, nothing left to measure",
    STOPPED: "stopped; start it again to go on",
    FAILED: "ended with an error; its log says which",
}
FRAME_LINES: Final = 7
"""Besides figures, nodes and what is wrong: the first line, those of the table, the cursor's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is known at one moment."""

    workspace: str
    now: datetime
    run: LiveRun | None
    """The newest; None where there was none."""
    is_held: bool
    """Whether a process writes in the workspace."""
    sick: dict[str, str] = field(default_factory=dict)
    """UUID of a board -> what it has, and since when."""

    @property
    def age_s(self) -> float:
        """How long ago the run has noted its state."""
        return 0.0 if self.run is None else self._since(self.run.at)

    @property
    def is_measuring(self) -> bool:
        """Whether the run goes on."""
        return self.run is not None and self.run.state == MEASURING and self.is_held

    def title(self) -> str:
        """What the run does, or how it ended."""
        if self.run is None:
            state = "a run starts" if self.is_held else "no run yet"
            return f"workspace {self.workspace}: {state}"
        return f"run {self.run.plan}: {self._state(self.run)}"

    def _state(self, run: LiveRun) -> str:
        ago = f"{duration(self.age_s)} ago"
        if run.state != MEASURING:
            ending = f"{ENDS.get(run.state, run.state)} ({ago})"
            # The run itself holds the workspace for seconds more.
            is_another = self.is_held and self.age_s > SILENT_S
            return f"{ending}; another command writes there now" if is_another else ending
        if not self.is_held:
            return f"its process has died ({ago}); start it again to go on"
        if self.age_s > SILENT_S:
            return f"it has noted nothing for {duration(self.age_s)}"
        if run.closed:
            return f"waits {run.closed}"
        return f"{_doing(run)} for {duration(self._since(run.started_at))}"

    def _since(self, moment: str) -> float:
        return max(0.0, (self.now - datetime.fromisoformat(moment)).total_seconds())


def render(view: View, lines: int | None = None) -> RenderableType:
    """The view, in about so many lines; None: as many as it takes."""
    head = _line(f"{view.now.astimezone():%H:%M:%S}  {view.title()}")
    if view.run is None:
        return head
    figures = figures_of(view.run, is_measuring=view.is_measuring)
    named = [_line(f"  {name:9} {text}") for name, text in figures.items()]
    wrong = troubles(view.run) if view.is_measuring else []
    wrong += [f"board {board} {text}" for board, text in view.sick.items()]
    nodes = nodes_of(view.run)
    shown_wrong, shown_nodes = wrong, nodes
    if lines is not None:
        room = max(4, lines - len(named) - FRAME_LINES)
        shown_wrong = _first(wrong, room // 2, "more of these")
        shown_nodes = nodes[: max(1, room - len(shown_wrong))]
    left_out = len(nodes) - len(shown_nodes)
    table = [_table(shown_nodes, is_measuring=view.is_measuring)] if nodes else []
    rest = [_line(f"and {left_out} more nodes")] if left_out else []
    line = _folded if lines is None else _line
    return Group(head, *named, *table, *rest, *map(line, shown_wrong))


def figures_of(run: LiveRun, *, is_measuring: bool) -> dict[str, str]:
    """Name -> text, of the whole run."""
    figures: dict[str, str] = {}
    if run.cells:
        figures["cells"] = _cells(run)
    if is_measuring and (run.due or run.second_due):
        figures["rate"] = _rate(run)
    if run.budget:
        figures["budget"] = run.budget
    figures["agents"] = _agents(run) if is_measuring else f"{len(run.agents)} took part"
    figures["model"] = _model(run, is_training=is_measuring and run.training)
    if run.failures:
        reasons = Counter(run.statuses)
        del reasons["ok"]
        listed = ", ".join(f"{count} {status}" for status, count in reasons.most_common())
        figures["failures"] = f"{run.failures} ({listed})"
    if run.refused:
        figures["refused"] = f"{run.refused} rows that agents sent"
    if run.store_failures:
        figures["store"] = f"has failed {run.store_failures} times"
    return figures


def _doing(run: LiveRun) -> str:
    if not run.agents:
        return "waiting for agents"
    is_done = not (run.due or run.second_due)
    return "all measured, training" if is_done and run.training else "measuring"


def _cells(run: LiveRun) -> str:
    share = 100 * run.done // run.cells
    words = [f"{run.done:,} of {run.cells:,} ({share} %)"]
    if run.due:
        words.append(f"{run.due:,} due")
    if run.second_due:
        words.append(f"{run.second_due:,} due on a second board")
    return ", ".join(words)


def _rate(run: LiveRun) -> str:
    words = [f"{run.cells_per_s or 0.0:.1f} cells/s"]
    if run.eta_s is not None:
        words.append(f"{duration(run.eta_s)} left")
    if run.lag_s is not None:
        words.append(f"lag {run.lag_s:.1f} s")
    return ", ".join(words)


def _agents(run: LiveRun) -> str:
    states = [f"{count} {state}" for state, count in run.by_state().items() if count]
    return ", ".join(states) or "none yet"


def _model(run: LiveRun, *, is_training: bool) -> str:
    if run.champion is None:
        return "training the first" if is_training else "none yet"
    count = len(run.agents)
    lacking = run.without_champion
    where = "on all agents" if not lacking else f"not yet on {lacking} of {count} agents"
    words = [f"{run.champion} {where}"]
    if run.fresh_error_ratio is not None:
        words.append(f"error on fresh samples {100 * run.fresh_error_ratio:.1f} %")
    if is_training:
        words.append("training")
    return ", ".join(words)


def troubles(run: LiveRun) -> list[str]:
    """A line for each agent that waits, or gets no cells."""
    lines: list[str] = []
    for name, agent in sorted(run.agents.items()):
        if agent.state == "fault":
            lines.append(f"{name} gets no cells: {agent.reason}")
        elif agent.state == "waiting":
            lines.append(f"{name} waits: {agent.reason}")
    return lines


def _first(lines: Sequence[str], count: int, rest: str) -> list[str]:
    """The first of some lines, and how many others there are."""
    if len(lines) <= count:
        return list(lines)
    kept = max(1, count - 1)
    return [*lines[:kept], f"and {len(lines) - kept} {rest}"]


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _folded(text: str) -> Text:
    return Text(text, overflow="fold")


def _table(nodes: Sequence[NodeRow], *, is_measuring: bool) -> Table:
    """Names and figures stay whole where the terminal is narrow. Other texts are cut by Text: a
    column that does not wrap would not shrink before the figures do."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("node", no_wrap=True)
    table.add_column("devices")
    for name in ("cells/s", "busy", "failed", "model"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("agents")
    for node in nodes:
        texts = map(_line, node.texts(is_measuring=is_measuring))
        table.add_row(*texts, style="red" if is_measuring and not node.is_well else None)
    return table
