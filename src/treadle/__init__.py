"""treadle: an agent runtime for Python.

The names most programs need; the rest is in the modules, one concept in each.
"""

from treadle.agent import Agent
from treadle.domain.blocks import Block
from treadle.domain.events import (
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
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Reasoning,
)
from treadle.domain.limits import Limits
from treadle.domain.result import RunResult
from treadle.domain.rules import ToolRules
from treadle.domain.thread_tree import ThreadTree
from treadle.domain.usage import Price, Usage
from treadle.errors import TreadleError
from treadle.journal.base import ThreadInfo
from treadle.journal.projection import RunRecord
from treadle.loop.hook_context import Completion, CompletionContext, HookContext, RunEnd
from treadle.loop.hooks import ChangedArguments, Hooks, ToolCall, Veto, hook
from treadle.models.base import ModelSettings, NamedTool
from treadle.models.fallback import FallbackModel
from treadle.models.resolve import resolve_model
from treadle.models.retry import RetryPolicy
from treadle.models.typed_stream import typed_stream
from treadle.runtime.foreground import Run
from treadle.runtime.memory import Memory
from treadle.runtime.runtime import Runtime
from treadle.runtime.runtime import open as open
from treadle.runtime.thread import PendingCall, Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.tools.context import RunContext
from treadle.tools.function import Tool, tool
from treadle.tools.output import Image

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
    "TreadleError",
    "Usage",
    "UsageAdded",
    "Veto",
    "hook",
    "resolve_model",
    "tool",
    "typed_stream",
]
