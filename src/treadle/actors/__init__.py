"""Threads in this process: the way to them, and those that it drives."""
