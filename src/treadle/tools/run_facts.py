"""What functions of the program can read about the run that they are called for."""

from collections.abc import Sequence

from treadle.domain.items import Item, Message
from treadle.domain.removed_items import visible
from treadle.domain.state import ThreadState, message_place
from treadle.domain.usage import Spent, Usage
from treadle.ports import ThreadWriter


class RunFacts:
    """Base of the contexts: the facts that change while a run is in progress.

    They are read from `_writer`, the thread of the run; without one they are empty.
    """

    @property
    def _writer(self) -> ThreadWriter | None:
        raise NotImplementedError

    @property
    def history(self) -> Sequence[Item]:
        """The conversation so far, without the step that is open."""
        if self._writer is None:
            return ()
        state = self._writer.state
        return visible(state.history) if state.context.removed else state.history

    @property
    def step(self) -> int:
        """The number of the open step, or of the one closed last; 0 before the first."""
        run = self._writer.state.run if self._writer is not None else None
        return run.steps if run is not None else 0

    @property
    def spent(self) -> Spent:
        """What the run has used up: tokens, cost, steps, calls and seconds."""
        run = self._writer.state.run if self._writer is not None else None
        return run.spent if run is not None else Spent()

    @property
    def usage(self) -> Usage:
        """The tokens that the run has used up; the same as `spent.usage`."""
        return self.spent.usage


def message_of(state: ThreadState) -> Message | None:
    """Returns the message that the run began with; None if it has left the history."""
    run = state.run
    place = None if run is None else message_place(run, state.history)
    item = None if place is None else state.history[place]
    return item if isinstance(item, Message) else None
