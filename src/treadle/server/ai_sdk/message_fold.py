"""A message of the assistant, made of chunks as a client makes it."""

from typing import Any, cast

from treadle.server.ai_sdk.chunks import Chunk

Json = dict[str, Any]

_BOUNDARY: Json = {"type": "step-start"}


class MessageFold:
    """Adds chunks up to the parts and the metadata of a message, as the AI SDK does."""

    def __init__(self, id: str) -> None:
        self.id = id
        self._parts: list[Json] = []
        self._open: dict[tuple[str, str], Json] = {}
        self._calls: dict[str, Json] = {}
        self._metadata: Json = {}

    @property
    def message(self) -> Json:
        """The message; without parts, if there are none yet."""
        message: Json = {"id": self.id, "role": "assistant", "parts": self._parts}
        return {**message, "metadata": self._metadata} if self._metadata else message

    def add(self, chunk: Chunk) -> None:
        """Takes the next chunk."""
        given = cast("Json", chunk)
        kind: str = given["type"]
        if (metadata := given.get("messageMetadata")) is not None:
            self._metadata |= metadata
        match kind:
            case "start-step":
                self._parts.append(_BOUNDARY)
            case "reset-step":
                self._reset()
            case "text-start" | "reasoning-start":
                part: Json = {"type": kind.removesuffix("-start"), "text": "", "state": "streaming"}
                if kind == "reasoning-start":
                    part["id"] = given["id"]
                if (metadata := given.get("providerMetadata")) is not None:
                    part["providerMetadata"] = metadata
                self._open[part["type"], given["id"]] = part
                self._parts.append(part)
            case "text-delta" | "reasoning-delta":
                self._open[kind.removesuffix("-delta"), given["id"]]["text"] += given["delta"]
            case "text-end" | "reasoning-end":
                part = self._open.pop((kind.removesuffix("-end"), given["id"]))
                part["state"] = "done"
                if citations := given.get("citations"):
                    part["citations"] = citations
            case "source-url" | "source-document" | "steering-message":
                self._parts.append(given)
            case _ if kind.startswith("tool-"):
                self._add_call(kind, given)
            case _:
                pass

    def _reset(self) -> None:
        at = len(self._parts)
        while at and self._parts[at - 1] is not _BOUNDARY:
            at -= 1
        del self._parts[at:]
        self._open.clear()

    def _add_call(self, kind: str, given: Json) -> None:
        if kind == "tool-approval-response":
            part = next(
                one
                for one in self._calls.values()
                if one.get("approval", {}).get("id") == given["approvalId"]
            )
            part["state"] = "approval-responded"
            part["approval"] |= {key: given[key] for key in ("approved", "reason") if key in given}
            return
        id: str = given["toolCallId"]
        match kind:
            case "tool-input-start":
                self._begin(given)
            case "tool-input-available":
                if id not in self._calls:
                    self._begin(given)
                self._calls[id] |= {"state": "input-available", "input": given["input"]}
                self._set_executed(id, given)
            case "tool-approval-request":
                approval = {"id": given["approvalId"]}
                self._calls[id] |= {"state": "approval-requested", "approval": approval}
            case "tool-output-available":
                self._calls[id] |= {"state": "output-available", "output": given["output"]}
                self._set_executed(id, given)
            case "tool-output-error":
                self._calls[id] |= {"state": "output-error", "errorText": given["errorText"]}
                self._set_executed(id, given)
            case "tool-output-denied":
                self._calls[id]["state"] = "output-denied"
            case _:
                pass

    def _begin(self, given: Json) -> None:
        id, name = given["toolCallId"], given["toolName"]
        if given.get("dynamic"):
            part: Json = {"type": "dynamic-tool", "toolName": name}
        else:
            part = {"type": f"tool-{name}"}
        part |= {"toolCallId": id, "state": "input-streaming"}
        self._calls[id] = part
        self._set_executed(id, given)
        self._parts.append(part)

    def _set_executed(self, id: str, given: Json) -> None:
        if (executed := given.get("providerExecuted")) is not None:
            self._calls[id]["providerExecuted"] = executed
