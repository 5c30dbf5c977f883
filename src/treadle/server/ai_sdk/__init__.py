"""The UI message stream of the AI SDK: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol.

A mapping only: a chat is a thread, a message of the assistant is a run, and its chunks are made of
the events of the run.
"""
