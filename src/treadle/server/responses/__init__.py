"""The OpenAI Responses API: https://platform.openai.com/docs/api-reference/responses.

A mapping only: a response is a run, or the part of it up to the next answer of the client, and its
objects and events are made of the events of the thread.
"""
