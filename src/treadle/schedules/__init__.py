"""Schedules: when they are due, and the tools with which agents wake themselves later."""
