"""Chaos inside one process: parts fail while the rest lives.

The campaign of `chaos` kills whole processes: callers, tasks, readers and call-outs end together.
Here every caller is cancelled after some turns of the event loop, every call-out raises
exceptions of every kind, readers pause, leave and come back, and appends fail. An innocent
conversation goes through it on the same runtime, and must not notice.
"""
