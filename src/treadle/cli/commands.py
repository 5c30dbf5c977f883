"""The commands of `treadle`, each imported when it is named: help and completion start at once."""

import logging
import signal
import threading
from importlib import import_module
from typing import NamedTuple, cast

import click

import treadle


class _Place(NamedTuple):
    """Where a command is, and its line in the list of commands."""

    path: str
    help: str


COMMANDS = {
    "chat": _Place("chat_command:chat", "Chat with an agent in the terminal."),
    "demo": _Place("demo:demo", "Show what treadle does, without a key and without a network."),
    "threads": _Place("stored:threads", "List the conversations, the most recent first."),
    "show": _Place("stored:show", "Print a conversation."),
    "watch": _Place("stored:watch", "Print a conversation and follow it live."),
    "send": _Place("messages:send", "Send a message to a conversation."),
    "cancel": _Place("messages:cancel", "End the run in progress of a conversation."),
    "calls": _Place("answers:calls", "List the calls that wait for an answer."),
    "approve": _Place("answers:approve", "Let a call run."),
    "deny": _Place("answers:deny", "Deny a call."),
    "answer": _Place("answers:answer", "Give the output of a call."),
    "schedules": _Place("stored:schedules", "List the messages that are sent later."),
    "models": _Place("model_list:models", "List the models that can be used here."),
    "pin": _Place("pins:pin", "Keep a message in the model's window."),
    "unpin": _Place("pins:unpin", "Let a pinned message leave the model's window."),
    "delete": _Place("deletion:delete", "Delete a conversation."),
    "export": _Place("exports:export", "Print a conversation as JSON lines."),
    "import": _Place("exports:import_", "Add a conversation from JSON lines."),
    "backup": _Place("damage:backup", "Copy the database, which may be in use."),
    "migrate": _Place("migrate:migrate", "Copy the database to PostgreSQL."),
    "repair": _Place("damage:repair", "Remove what cannot be read of a conversation."),
    "serve": _Place("serve:serve", "Serve agents over HTTP."),
    "keys": _Place("keys:keys", "Create, list and revoke the keys of the server."),
    "doctor": _Place("doctor:doctor", "Check whether treadle serve could start."),
}


class LazyGroup(click.Group):
    """Imports a command when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command of that name; None if there is none."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.path.partition(":")
        command = cast("click.Command", getattr(import_module(f"treadle.cli.{module}"), name))
        # The command prints what its user needs; logs are for programs, so they stay silent here. A
        # server has nothing else to report with: its warnings go to the standard error output, or
        # where the module of its agents sends them.
        if cmd_name != "serve":
            logging.getLogger("treadle").addHandler(logging.NullHandler())
        if threading.current_thread() is threading.main_thread():
            # All is imported: from here on Ctrl-C raises, and the command cleans up.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.help) for name, place in COMMANDS.items()])


@click.command(cls=LazyGroup)
@click.version_option(treadle.__version__, prog_name="treadle")
def cli() -> None:
    """An agent runtime for Python.

    Begin with treadle chat, which needs no key, or with treadle demo crash.
    """
