"""Displays of a running pipeline: a live table on a terminal, one line per event elsewhere."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tidemill.local.progress_reader import ProgressReader, StepProgress
from tidemill.local.step_states import State, Step, Steps

_STYLES = {
    State.WAITING: "dim",
    State.RUNNING: "yellow",
    State.CACHED: "cyan",
    State.CHECKED: "green",
    State.DONE: "green",
    State.FAILED: "bold red",
    State.STOPPED: "red",
    State.SKIPPED: "dim",
}
_REFRESH_PER_SECOND = 4
# The steps of a loop are not known from the start, and their names are longer.
_LEAST_WIDTH = 16
_BAR = 20
_NARROW = 110
"""Width of the terminal, in characters, below which the table has short bars and leaves out why a step runs."""


class Readings:
    """The progress of all steps, each read from its file. Safe to use from several threads."""

    def __init__(self) -> None:
        self._readers: dict[str, ProgressReader] = {}
        self._lock = threading.Lock()

    def of(self, step: Step) -> StepProgress:
        """Returns the progress of a step; nothing for a step that does not run in this run."""
        if step.state in (State.WAITING, State.SKIPPED, State.CACHED):
            return StepProgress()
        with self._lock:
            return self._readers.setdefault(step.name, ProgressReader(step.progress_file)).read()


class Lines:
    """Display that prints one line per event, and one line every ten seconds for each step that runs.

    Args:
        console: Where to write.
        interval_s: Seconds between two lines of a running step. Defaults to 10.
    """

    def __init__(self, console: Console, interval_s: float = 10.0):
        self._console = console
        self._interval_s = interval_s
        self._readings = Readings()

    @contextlib.contextmanager
    def showing(self, steps: Steps) -> Iterator[None]:
        """Shows the run inside the block."""
        width = max(_LEAST_WIDTH, *(len(step.name) for step in steps))

        def line(step: Step) -> None:
            if step.state is State.SKIPPED:
                return
            word = "started" if step.state is State.RUNNING else step.state.value
            # The time of a cached step says nothing.
            took = f"  {duration(step.seconds)}" if step.seconds is not None and step.state is not State.CACHED else ""
            why = f": {summary(step.reasons)}" if step.reasons and step.state is State.RUNNING else ""
            speed = speed_text(self._readings.of(step), step) if step.state is State.DONE else ""
            self._print(f"{step.name:<{width}}  {word}{took}{speed}{why}")

        def heartbeat() -> None:
            while not ended.wait(self._interval_s):
                for step in steps:
                    elapsed = step.elapsed() or 0.0
                    if step.state is State.RUNNING and elapsed > self._interval_s:
                        reading = self._readings.of(step)
                        doing = ", ".join(filter(None, [reading.phase, reading.metrics]))
                        text = f"{step.name:<{width}}  running  {duration(elapsed)}{speed_text(reading, step)}"
                        self._print(f"{text}: {doing}" if doing else text)

        steps.observe(line)
        ended = threading.Event()
        thread = threading.Thread(target=heartbeat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class LiveTable:
    """Display that redraws a table of all steps a few times per second.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console):
        self._console = console
        self._readings = Readings()

    @contextlib.contextmanager
    def showing(self, steps: Steps) -> Iterator[None]:
        """Shows the run inside the block; the last state of the table stays."""
        with Live(
            console=self._console,
            get_renderable=lambda: self.view(steps),
            refresh_per_second=_REFRESH_PER_SECOND,
        ):
            yield

    def view(self, steps: Steps) -> Group:
        """Returns the table with the present state of all steps, and below it the metrics of each running training."""
        lines = []
        for step in steps:
            if step.state is State.RUNNING and (metrics := self._readings.of(step).metrics):
                lines.append(Text(f"{step.name}: {metrics}", style="dim"))
        return Group(self._table(steps), *lines)

    def _table(self, steps: Steps) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("step", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        narrow = self._console.width < _NARROW
        table.add_column("", width=_BAR // 2 if narrow else _BAR)
        table.add_column("rows/s", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True, overflow="ellipsis", style="dim")
        if not narrow:
            table.add_column("why it runs", no_wrap=True, overflow="ellipsis", style="dim")
        for step in steps:
            reading = self._readings.of(step)
            seconds = None if step.state is State.CACHED else step.elapsed()
            running = step.state is State.RUNNING
            why = summary(step.reasons) if step.state not in (State.WAITING, State.CACHED) else ""
            table.add_row(
                step.name,
                Text(step.state.value, style=_STYLES[step.state]),
                "" if seconds is None else duration(seconds),
                _bar(reading) if running else "",
                _rate(reading, step),
                reading.phase if running else "",
                *([] if narrow else [why]),
            )
        return table


def summary(reasons: list[str]) -> str:
    """Returns the first reason and the number of the others."""
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"{reasons[0]}{more}" if reasons else ""


def duration(seconds: float) -> str:
    """Returns a duration as text: `0.8 s`, `12 s`, `3 min 05 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def speed_text(reading: StepProgress, step: Step) -> str:
    """Returns the rows per second of a step over its whole time, with a comma before it. Empty without rows."""
    rate = _rate(reading, step)
    return f", {rate} rows/s" if rate else ""


def _bar(reading: StepProgress) -> ProgressBar | str:
    share = reading.share()
    return "" if share is None else ProgressBar(total=1.0, completed=share, width=_BAR)


def _rate(reading: StepProgress, step: Step) -> str:
    elapsed = step.elapsed()
    return f"{reading.rows / elapsed:,.0f}" if reading.rows and elapsed else ""
