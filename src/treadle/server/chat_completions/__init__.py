"""The OpenAI Chat Completions API: https://platform.openai.com/docs/api-reference/chat.

A mapping only: a completion is a run, or the part of it up to the next answer of the client. A
request brings its own history, or names a thread that has it.
"""
