"""weft: an agent runtime for Python.

The names most programs need; the rest is in the modules, one concept in each.
"""

from weft.agent import Agent
from weft.domain.blocks import Block
from weft.domain.events import (
    AgentEvent,
    ContextCompacted,
    Event,
    FieldDelta,
    HandedOff,
    HistoryReplaced,
    JobDelegated,
    JobSettled,
    JobStarted,
    MemoryTended,
    MemoryUpdated,
    MessageAdded,
    MessagePinned,
    MessageQueued,
    PassageAdded,
    PassageRemoved,
    QuotaHit,
    RateLimitHit,
    ReasoningDelta,
    RefusalDelta,
    RetriesExhausted,
    Retrying,
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunContinued,
    RunExpired,
    RunFailed,
    RunFinishing,
    RunIncomplete,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    TextDelta,
    ToolApproved,
    ToolArgumentsDelta,
    ToolCallRequested,
    ToolCallStarted,
    ToolDelegated,
    ToolOutputRecorded,
    ToolProgress,
    ToolStarted,
    ToUserDelta,
    UsageAdded,
)
from weft.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Reasoning,
)
from weft.domain.limits import Limits
from weft.domain.result import RunResult
from weft.domain.rules import ToolRules
from weft.domain.thread_tree import ThreadTree
from weft.domain.usage import Price, Usage
from weft.errors import WeftError
from weft.journal.base import ThreadInfo
from weft.journal.projection import RunRecord
from weft.loop.hook_context import Completion, CompletionContext, HookContext, RunEnd
from weft.loop.hooks import ChangedArguments, Hooks, ToolCall, Veto, hook
from weft.models.base import ModelSettings, NamedTool
from weft.models.fallback import FallbackModel
from weft.models.resolve import resolve_model
from weft.models.retry import RetryPolicy
from weft.models.typed_stream import typed_stream
from weft.runtime.foreground import Run
from weft.runtime.memory import Memory
from weft.runtime.runtime import Runtime
from weft.runtime.runtime import open as open
from weft.runtime.thread import PendingCall, Thread
from weft.runtime.thread_run import ThreadRun
from weft.tools.context import RunContext
from weft.tools.function import Tool, tool
from weft.tools.output import Image

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentEvent",
    "Block",
    "ChangedArguments",
    "Completion",
    "CompletionContext",
    "ContextCompacted",
    "Event",
    "FallbackModel",
    "FieldDelta",
    "FunctionCall",
    "FunctionCallOutput",
    "HandedOff",
    "HistoryReplaced",
    "HookContext",
    "Hooks",
    "Image",
    "InputImage",
    "InputText",
    "Item",
    "JobDelegated",
    "JobSettled",
    "JobStarted",
    "Limits",
    "Memory",
    "MemoryTended",
    "MemoryUpdated",
    "Message",
    "MessageAdded",
    "MessagePinned",
    "MessageQueued",
    "ModelSettings",
    "NamedTool",
    "OutputText",
    "PassageAdded",
    "PassageRemoved",
    "PendingCall",
    "Price",
    "QuotaHit",
    "RateLimitHit",
    "Reasoning",
    "ReasoningDelta",
    "RefusalDelta",
    "RetriesExhausted",
    "RetryPolicy",
    "Retrying",
    "Run",
    "RunCancelled",
    "RunCancelling",
    "RunCompleted",
    "RunContext",
    "RunContinued",
    "RunEnd",
    "RunExpired",
    "RunFailed",
    "RunFinishing",
    "RunIncomplete",
    "RunQueued",
    "RunRecord",
    "RunRequiresAction",
    "RunResult",
    "RunStarted",
    "Runtime",
    "StepCompleted",
    "StepInterrupted",
    "StepStarted",
    "TextDelta",
    "Thread",
    "ThreadInfo",
    "ThreadRun",
    "ThreadTree",
    "ToUserDelta",
    "Tool",
    "ToolApproved",
    "ToolArgumentsDelta",
    "ToolCall",
    "ToolCallRequested",
    "ToolCallStarted",
    "ToolDelegated",
    "ToolOutputRecorded",
    "ToolProgress",
    "ToolRules",
    "ToolStarted",
    "Usage",
    "UsageAdded",
    "Veto",
    "WeftError",
    "hook",
    "resolve_model",
    "tool",
    "typed_stream",
]
