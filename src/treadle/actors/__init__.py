"""Threads in the process that drives them, and beside it."""
