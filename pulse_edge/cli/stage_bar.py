"""How far a stage is, as a line of text that moves also between two reports."""

from __future__ import annotations

WIDTH = 30  # of a bar
BLOCK = 5  # width of what moves in a bar while nothing is known
MOST = 0.99  # share of a stage that has not reported its end
MINUTES_FROM = 100  # seconds


class StageBar:
    """One stage on its way: what was reported, and what the clock says since.

    Args:
        name: of the stage.
        total: amount of it, in the stage's own unit.
        now: seconds since any moment.
        expected: seconds that the stage usually takes; None if nobody knows.
    """

    def __init__(self, name: str, total: int, now: float, expected: float | None = None) -> None:
        self.name = name
        self._total = max(1, total)
        self._expected = expected
        self._begun = now
        self._done = 0
        self._step = 0  # the last amount that was reported
        self._moved = now  # when it was
        self._shown = 0.0  # share, which never falls

    @property
    def complete(self) -> bool:
        """Whether all of the stage was reported."""
        return self._done >= self._total

    def elapsed(self, now: float) -> float:
        """Seconds since the stage began."""
        return now - self._begun

    def add(self, amount: int, now: float) -> None:
        """Take a report: so much more is done."""
        if amount:
            self._done += amount
            self._step = amount
            self._moved = now

    def share(self, now: float) -> float | None:
        """How much of the stage is done, from 0 to 1; None if nothing tells."""
        if self.complete:
            return 1.0
        if self._done:
            pace = self._done / max(1e-9, self._moved - self._begun)
            ahead = min(self._step, pace * (now - self._moved))
            share = (self._done + ahead) / self._total
        elif self._expected:
            share = self.elapsed(now) / self._expected
        else:
            return None
        self._shown = min(MOST, max(share, self._shown))
        return self._shown

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the stage ends; None if nothing tells, or it takes longer than usual."""
        if self.complete:
            return None
        if self._done:
            each = (self._moved - self._begun) / self._done
            left = each * (self._total - self._done) - (now - self._moved)
        elif self._expected:
            left = self._expected - self.elapsed(now)
        else:
            return None
        return left if left > 0 else None

    def line(self, now: float) -> str:
        """The stage as a line: its bar, and the seconds that are left or that it has taken."""
        share = self.share(now)
        left = self.seconds_left(now)
        if share is None:
            return f"{self.name:<10} [{_moving(now)}]       {duration(self.elapsed(now))}"
        bar = f"{self.name:<10} [{'#' * int(WIDTH * share):<{WIDTH}}] {share:4.0%}"
        if self.complete:
            return bar
        if left is None:
            return f"{bar}  {duration(self.elapsed(now))}"
        return f"{bar}  {duration(left)} left"


def duration(seconds: float) -> str:
    """Seconds for people: whole seconds, or minutes if they are many."""
    if seconds < MINUTES_FROM:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"


def _moving(now: float) -> str:
    """A bar whose block goes to and fro."""
    room = WIDTH - BLOCK
    at = int(now * 12) % (2 * room)
    at = min(at, 2 * room - at)
    return f"{' ' * at}{'#' * BLOCK}{' ' * (room - at)}"
