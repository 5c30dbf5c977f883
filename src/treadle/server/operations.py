"""All operations of the API."""

from treadle.server.ag_ui.ag_ui_routes import AG_UI
from treadle.server.ai_sdk.chat_routes import CHATS
from treadle.server.assistants.runs_routes import ASSISTANTS_RUNS
from treadle.server.assistants.threads_routes import ASSISTANTS
from treadle.server.chat_completions.completion_routes import COMPLETIONS
from treadle.server.mcp_tools.mcp_routes import MCP
from treadle.server.openai.models import MODELS
from treadle.server.operation import Operation, Operations
from treadle.server.responses.conversations import CONVERSATIONS
from treadle.server.responses.responses_routes import RESPONSES
from treadle.server.routes.agents import AGENTS
from treadle.server.routes.archive import ARCHIVE
from treadle.server.routes.calls import CALLS
from treadle.server.routes.events import EVENTS
from treadle.server.routes.files import FILES
from treadle.server.routes.items import ITEMS
from treadle.server.routes.jobs import JOBS
from treadle.server.routes.memory import MEMORY
from treadle.server.routes.messages import MESSAGES
from treadle.server.routes.owners import OWNERS
from treadle.server.routes.runs import RUNS
from treadle.server.routes.schedules import SCHEDULES
from treadle.server.routes.search import SEARCH
from treadle.server.routes.session import SESSION
from treadle.server.routes.threads import THREADS

_NOUNS: tuple[Operations, ...] = (
    AGENTS,
    THREADS,
    ITEMS,
    MESSAGES,
    RUNS,
    CALLS,
    EVENTS,
    MEMORY,
    ARCHIVE,
    JOBS,
    SCHEDULES,
    FILES,
    SEARCH,
    OWNERS,
    SESSION,
    MODELS,
    RESPONSES,
    CONVERSATIONS,
    COMPLETIONS,
    ASSISTANTS_RUNS,
    ASSISTANTS,
    AG_UI,
    MCP,
    CHATS,
)


def all_operations() -> list[Operation]:
    """Returns the operations, by noun."""
    return [operation for noun in _NOUNS for operation in noun.all]
