"""The slots of an engine as lanes for requests, and which lane a request gets."""

from __future__ import annotations

from collections.abc import Callable

from pulse_edge.decode.handover import Handover, share_steps
from pulse_edge.decode.kept import KeptCaches, shared_length
from pulse_edge.decode.sequence import Sequence
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.slot import EngineSlot
from pulse_edge.text.template import Prompt


class Lane:
    """A slot of an engine, and the request that is in it.

    Attributes:
        engine: the slot, as an engine of its own.
        sequence: what the slot holds.
        handover: where the request offers its steps; None if the engine has one slot.
        busy: whether a request is in it.
    """

    def __init__(self, engine: Engine, sequence: Sequence, handover: Handover | None) -> None:
        self.engine = engine
        self.sequence = sequence
        self.handover = handover
        self.busy = False


class Lanes:
    """All slots of an engine. They share the copies of pages that had to leave a slot.

    Args:
        engine: has the slots.
        kept_bytes: most memory of these copies.
    """

    def __init__(self, engine: Engine, kept_bytes: int) -> None:
        self._engine = engine
        self.kept = KeptCaches(engine, kept_bytes)
        self.all: tuple[Lane, ...] = ()
        count = len(engine.cursors)
        if count == 1:
            self.all = (Lane(engine, Sequence(engine, kept=self.kept), None),)
            return
        for number in range(count):
            slot = EngineSlot(engine, number)
            sequence = Sequence(slot, kept=self.kept, slot=number)
            self.all += (Lane(slot, sequence, Handover(number)),)
        self._waited: list[Lane] = list(self.all)  # the last used one at the end

    @property
    def busy(self) -> int:
        """Lanes with a request. Any thread may ask."""
        return sum(lane.busy for lane in self.all)

    def known(self, keys: list[int]) -> int:
        """Positions of a prompt that need not be computed. Any thread may ask; it is a guess."""
        return max(lane.sequence.known(keys) for lane in self.all)

    def enter(self, prompt: Prompt) -> Lane:
        """Take a free lane for a request, which must leave it. There is one.

        The lane is one that keeps its page: of those the one that shares most with the prompt, and
        among equals the first, so that busy slots lie side by side. If every free lane would lose
        its page, it is the one that was used longest ago.
        """
        lane = self.all[0] if len(self.all) == 1 else self._choose(prompt.keys)
        lane.busy = True
        return lane

    def _choose(self, keys: list[int]) -> Lane:
        free = [lane for lane in self._waited if not lane.busy]
        best, most = free[0], -1
        for lane in (lane for lane in self.all if not lane.busy):
            shared = shared_length(lane.sequence.keys, keys)
            if shared >= lane.sequence.page_end and shared > most:
                best, most = lane, shared
        self._waited.remove(best)
        self._waited.append(best)
        return best

    def leave(self, lane: Lane) -> None:
        """The request in a lane has ended, or gives way."""
        if lane.handover is not None:
            lane.handover.withdraw()
        lane.busy = False

    def others(self, lane: Lane) -> list[Sequence]:
        """The sequences of all other lanes."""
        return [other.sequence for other in self.all if other is not lane]

    def share(self) -> None:
        """Run the steps that are offered in one pass. A request that is alone runs its own."""
        company = self.busy > 1
        handovers = [lane.handover for lane in self.all if lane.handover is not None]
        for handover in handovers:
            handover.company = company
        if company:
            share_steps(self._engine, handovers)

    def forget(self) -> None:
        """Drop what all lanes hold, and the copies."""
        self.kept.forget()
        self._each(lambda sequence: sequence.rewind(0))

    def reset(self) -> None:
        """Empty all slots after a failure, also of what lies beyond their length."""
        self._each(lambda sequence: sequence.reset())

    def _each(self, act: Callable[[Sequence], None]) -> None:
        for lane in self.all:
            act(lane.sequence)
