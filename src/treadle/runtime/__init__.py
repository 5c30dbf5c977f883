"""Threads and runs as their users hold them."""
