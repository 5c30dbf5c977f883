"""A step as the fold sees it: the items of one response, and the outputs of its calls."""

from operator import itemgetter

from msgspec import Struct

from treadle.domain.events import Awaited, FinishReason
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, Reasoning
from treadle.domain.schema import JsonSchema


class EditableCall(Struct, frozen=True, omit_defaults=True):
    """A call that may be approved with other arguments: their JSON Schema, without `to_user`.

    `to_user` names the argument that is shown to the user, if there is one.
    """

    call_id: str
    parameters: JsonSchema
    to_user: str = ""


class Step(Struct, frozen=True, gc=False, omit_defaults=True):
    """One response of the model and the calls it asked for.

    `items` pairs each item with its place in the response, because items may finish out of order.
    `started` and `approved` hold the ids of calls, `awaits` what calls need from outside,
    `editable` what those with an approval may be changed to.
    `delegated` holds the ids of the threads on which agents work for it. `finish_reason` is None
    until the response is complete.
    """

    number: int
    items: tuple[tuple[int, Item], ...] = ()
    outputs: tuple[FunctionCallOutput, ...] = ()
    started: tuple[str, ...] = ()
    awaits: tuple[tuple[str, Awaited], ...] = ()
    approved: tuple[str, ...] = ()
    delegated: tuple[str, ...] = ()
    finish_reason: FinishReason | None = None
    editable: tuple[EditableCall, ...] = ()

    @property
    def calls(self) -> tuple[FunctionCall, ...]:
        """The finished calls, in the order of the response."""
        items = self.items
        if len(items) > 1:
            items = sorted(items, key=_place)
        return tuple([item for _, item in items if type(item) is FunctionCall])

    @property
    def pending(self) -> tuple[FunctionCall, ...]:
        """The calls without an output."""
        answered = {output.call_id for output in self.outputs}
        return tuple([call for call in self.calls if call.call_id not in answered])

    @property
    def awaited(self) -> tuple[FunctionCall, ...]:
        """The pending calls that need an output or an approval from outside."""
        if not self.awaits:
            return ()
        return tuple(call for call in self.pending if self.awaits_of(call.call_id) is not None)

    @property
    def ready(self) -> tuple[FunctionCall, ...]:
        """The pending calls that can run, or run already."""
        if not self.awaits:
            return self.pending
        return tuple(call for call in self.pending if self.awaits_of(call.call_id) is None)

    def awaits_of(self, call_id: str) -> Awaited | None:
        """Returns what the call still needs from outside; None if it needs nothing."""
        for id, kind in self.awaits:
            if id == call_id:
                return None if call_id in self.approved else kind
        return None

    def call(self, call_id: str) -> FunctionCall | None:
        """The finished call of that id."""
        for _, item in self.items:
            if type(item) is FunctionCall and item.call_id == call_id:
                return item
        return None

    def output(self, call_id: str) -> FunctionCallOutput | None:
        """The output of the call of that id."""
        for output in self.outputs:
            if output.call_id == call_id:
                return output
        return None

    def is_answered(self, call_id: str) -> bool:
        """Whether the call of that id has its output."""
        return self.output(call_id) is not None

    @property
    def ordered(self) -> list[Item]:
        """The items of the response in its own order."""
        return [item for _, item in sorted(self.items, key=_place)]

    def settled(self) -> list[Item]:
        """The items of the response, then the outputs of its calls in call order.

        Reasoning that led to nothing is left out, because providers refuse it without the item it
        led to: all reasoning of a response without another item, and what a response that broke off
        ends with. In a complete response, text may come before reasoning.
        """
        items = self.ordered
        is_complete = self.finish_reason is not None
        if not is_complete or all(isinstance(item, Reasoning) for item in items):
            while items and isinstance(items[-1], Reasoning):
                items.pop()
        outputs = {output.call_id: output for output in self.outputs}
        return [*items, *(outputs[call.call_id] for call in self.calls)]


_place = itemgetter(0)
