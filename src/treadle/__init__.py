"""treadle: an agent runtime for Python.

Public names live in this module and in `treadle.errors`, `treadle.models`, `treadle.jobs`,
`treadle.memory`, `treadle.mcp`, `treadle.server`, `treadle.client`, `treadle.sync`,
`treadle.testing`, `treadle.telemetry` and `treadle.logging`.
Everything else is private and may move.
"""

from treadle.actors.spending import SpendingLimit
from treadle.agent import Agent
from treadle.bus.position import Position
from treadle.bus.subscription import Subscription
from treadle.domain.blocks import Block
from treadle.domain.desk import DeskEvent, ThreadCreated, ThreadDeleted
from treadle.domain.entries import OnBusy
from treadle.domain.envelope import Envelope
from treadle.domain.events import (
    AgentEvent,
    ContextCompacted,
    Event,
    EventRemoved,
    FieldDelta,
    HandedOff,
    HistoryReplaced,
    ItemRemoved,
    ItemsAdded,
    JobDelegated,
    JobSettled,
    JobStarted,
    LiveEvent,
    MemoryTended,
    MemoryUpdated,
    MessageAdded,
    MessagePinned,
    MessageQueued,
    PassageAdded,
    PassageRemoved,
    ProviderItemAdded,
    QuotaHit,
    RateLimitHit,
    ReasoningAdded,
    ReasoningDelta,
    RecordedEvent,
    RefusalDelta,
    RequestAdapted,
    ResponseCompleted,
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
    ScheduleCancelled,
    ScheduleCreated,
    ScheduleFired,
    StepCompleted,
    StepInterrupted,
    StepStarted,
    TerminalEvent,
    TextDelta,
    ThreadUpdated,
    ToolApproved,
    ToolArgumentsDelta,
    ToolCallRequested,
    ToolCallStarted,
    ToolChoiceIgnored,
    ToolDelegated,
    ToolOutputRecorded,
    ToolProgress,
    ToolStarted,
    ToUserDelta,
    UnknownEvent,
    UsageAdded,
    ValidatedOutput,
)
from treadle.domain.inputs import user_messages
from treadle.domain.items import (
    Annotation,
    ContentPart,
    FileCitation,
    FunctionCall,
    FunctionCallOutput,
    Input,
    InputAudio,
    InputFile,
    InputImage,
    InputText,
    Item,
    Message,
    OutputPart,
    OutputText,
    ProviderFields,
    ProviderItem,
    Reasoning,
    ReasoningText,
    Refusal,
    SummaryText,
    UrlCitation,
    user_message,
)
from treadle.domain.limits import Limits
from treadle.domain.options import AllowedTools, ExternalTool, RunOptions
from treadle.domain.page import Page
from treadle.domain.result import RunResult
from treadle.domain.rules import ToolRules
from treadle.domain.schedules import Schedule
from treadle.domain.schema import OutputMode
from treadle.domain.settings import ModelSettings, NamedTool
from treadle.domain.spending import Spending
from treadle.domain.thread_tree import ThreadTree, TreeNode
from treadle.domain.usage import Price, Spent, Usage
from treadle.errors import ModelRetry, TreadleError
from treadle.journal.base import ThreadInfo, WaitingCall
from treadle.journal.files import FileInfo
from treadle.journal.projection import RunError, RunRecord
from treadle.loop.hook_context import Completion, CompletionContext, HookContext, RunEnd
from treadle.loop.hooks import (
    ChangedArguments,
    Hook,
    Hooks,
    ToolCall,
    Veto,
    hook,
)
from treadle.loop.output_validators import OutputValidator
from treadle.models.fallback import FallbackModel
from treadle.models.resolve import resolve_model
from treadle.models.retry import RetryPolicy
from treadle.models.typed_stream import typed_stream
from treadle.runtime.archive import Archive
from treadle.runtime.desk import DeskSubscription
from treadle.runtime.fetch import fetch_file
from treadle.runtime.files import Files
from treadle.runtime.foreground import Run
from treadle.runtime.memory import Memory
from treadle.runtime.run_subscription import RunSubscription
from treadle.runtime.runtime import Runtime
from treadle.runtime.runtime import open as open
from treadle.runtime.state_subscription import StateSubscription
from treadle.runtime.thread import PendingCall, Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.runtime.thread_view import CallView, QueuedView, RunView, StepView, ThreadView
from treadle.runtime.view import RuntimeView
from treadle.schedules.tools import schedule_tools
from treadle.tools.call import PreparedCall, RefusedCall
from treadle.tools.call import prepare as prepare_call
from treadle.tools.context import CallCancelled, CancellationToken, RunContext
from treadle.tools.function import Tool, tool
from treadle.tools.output import File, Image
from treadle.tools.parameters import GivenParameters
from treadle.tools.source import ToolSource, tool_source
from treadle.tools.toolset import Toolset

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentEvent",
    "AllowedTools",
    "Annotation",
    "Archive",
    "Block",
    "CallCancelled",
    "CallView",
    "CancellationToken",
    "ChangedArguments",
    "Completion",
    "CompletionContext",
    "ContentPart",
    "ContextCompacted",
    "DeskEvent",
    "DeskSubscription",
    "Envelope",
    "Event",
    "EventRemoved",
    "ExternalTool",
    "FallbackModel",
    "FieldDelta",
    "File",
    "FileCitation",
    "FileInfo",
    "Files",
    "FunctionCall",
    "FunctionCallOutput",
    "GivenParameters",
    "HandedOff",
    "HistoryReplaced",
    "Hook",
    "HookContext",
    "Hooks",
    "Image",
    "Input",
    "InputAudio",
    "InputFile",
    "InputImage",
    "InputText",
    "Item",
    "ItemRemoved",
    "ItemsAdded",
    "JobDelegated",
    "JobSettled",
    "JobStarted",
    "Limits",
    "LiveEvent",
    "Memory",
    "MemoryTended",
    "MemoryUpdated",
    "Message",
    "MessageAdded",
    "MessagePinned",
    "MessageQueued",
    "ModelRetry",
    "ModelSettings",
    "NamedTool",
    "OnBusy",
    "OutputMode",
    "OutputPart",
    "OutputText",
    "OutputValidator",
    "Page",
    "PassageAdded",
    "PassageRemoved",
    "PendingCall",
    "Position",
    "PreparedCall",
    "Price",
    "ProviderFields",
    "ProviderItem",
    "ProviderItemAdded",
    "QueuedView",
    "QuotaHit",
    "RateLimitHit",
    "Reasoning",
    "ReasoningAdded",
    "ReasoningDelta",
    "ReasoningText",
    "RecordedEvent",
    "Refusal",
    "RefusalDelta",
    "RefusedCall",
    "RequestAdapted",
    "ResponseCompleted",
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
    "RunError",
    "RunExpired",
    "RunFailed",
    "RunFinishing",
    "RunIncomplete",
    "RunOptions",
    "RunQueued",
    "RunRecord",
    "RunRequiresAction",
    "RunResult",
    "RunStarted",
    "RunSubscription",
    "RunView",
    "Runtime",
    "RuntimeView",
    "Schedule",
    "ScheduleCancelled",
    "ScheduleCreated",
    "ScheduleFired",
    "Spending",
    "SpendingLimit",
    "Spent",
    "StateSubscription",
    "StepCompleted",
    "StepInterrupted",
    "StepStarted",
    "StepView",
    "Subscription",
    "SummaryText",
    "TerminalEvent",
    "TextDelta",
    "Thread",
    "ThreadCreated",
    "ThreadDeleted",
    "ThreadInfo",
    "ThreadRun",
    "ThreadTree",
    "ThreadUpdated",
    "ThreadView",
    "ToUserDelta",
    "Tool",
    "ToolApproved",
    "ToolArgumentsDelta",
    "ToolCall",
    "ToolCallRequested",
    "ToolCallStarted",
    "ToolChoiceIgnored",
    "ToolDelegated",
    "ToolOutputRecorded",
    "ToolProgress",
    "ToolRules",
    "ToolSource",
    "ToolStarted",
    "Toolset",
    "TreadleError",
    "TreeNode",
    "UnknownEvent",
    "UrlCitation",
    "Usage",
    "UsageAdded",
    "ValidatedOutput",
    "Veto",
    "WaitingCall",
    "fetch_file",
    "hook",
    "prepare_call",
    "resolve_model",
    "schedule_tools",
    "tool",
    "tool_source",
    "typed_stream",
    "user_message",
    "user_messages",
]
