"""Agents as tools of an MCP server: https://modelcontextprotocol.io/specification/2025-11-25.

A mapping only: a call of a tool is a message to a thread, and its result is the answer of the run.
"""
