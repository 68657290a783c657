"""What is seen while `ropewalk sim` goes on: a progress bar on a terminal, else lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:
    from ..testing.values import Schedule


class Display:
    """Progress as lines: for a log, and for whoever has no terminal. It is the base of the other one."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._title = ""
        self._total = 0
        self._done = 0
        self._began = 0.0
        self._virtual = 0.0  # seconds simulated in this stage

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def now(self) -> float:
        """The console's clock, in seconds: real time, monotonic."""
        return self.console.get_time()

    def begin(self, title: str, total: int) -> None:
        """A stage of `total` steps begins; a stage without steps is not shown."""
        self.end()
        self._title, self._total, self._done, self._virtual = title, total, 0, 0.0
        self._began = self.now()

    def done(self, seconds: float, failures: int) -> None:
        """A simulation of that many virtual seconds is done; `failures`: how many there were so far."""
        self._done += 1
        self._virtual += seconds
        self.show(f"{ratio(self._virtual, self.now() - self._began)}, {counted(failures, 'failure')}")

    def shrunk(self, calls: int, smallest: Schedule) -> None:
        """A smaller schedule was tried."""
        self._done = calls
        self.show(size_of(smallest))

    def show(self, words: str) -> None:
        """Show where it stands: at every tenth part, and at the end."""
        step = max(1, self._total // 10)
        if self._done % step == 0 or self._done == self._total:
            self.console.print(f"{self._title}: {self._done}/{self._total}, {words}", markup=False)

    def end(self) -> None:
        """The stage is over."""


class LiveDisplay(Display):
    """Progress as a bar on a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress: Progress | None = None

    def begin(self, title: str, total: int) -> None:
        super().begin(title, total)
        if total == 0:
            return
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"),
            console=self.console, transient=True,
        )  # fmt: skip
        self._progress.add_task(title, total=total, words="")
        self._progress.start()

    def show(self, words: str) -> None:
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=self._done, words=words)

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def display_on(console: Console) -> Display:
    return LiveDisplay(console) if console.is_terminal else Display(console)


def ratio(virtual: float, real: float) -> str:
    """How much faster than life, of seconds and seconds.

    >>> ratio(3600, 1.5)
    '2,400 : 1'
    """
    return f"{virtual / real:,.0f} : 1" if real > 0 else "- : 1"


def size_of(schedule: Schedule) -> str:
    acts, faults = counted(len(schedule.acts), "act"), counted(len(schedule.faults), "fault")
    later = schedule.size - len(schedule.acts) - len(schedule.faults)
    return f"{acts} and {faults} in {schedule.seconds:g} s" + (f", {later} later" if later else "")


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
