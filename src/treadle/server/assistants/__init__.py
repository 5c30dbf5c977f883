"""The OpenAI Assistants API, version 2, whose hosted service has ended.

A mapping only, for programs that still use it: an assistant is an agent, a run is a run, and
messages and run steps are made of the events of the thread.
"""
