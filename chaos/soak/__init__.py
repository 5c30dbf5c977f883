"""Wears a server for long: many runs, readers that are cut and come back, and no kill.

`python -m chaos.soak RUNS` starts a provider simulator and `treadle serve` in processes of their
own. Conversations of a few runs each are created, watched and deleted. Every reader must have each
text exactly, however often its connection was cut; at the end the memory of the server must be what
it was after half of the runs, and so must the number of its open files and sockets.

Before that, memory grows by some megabytes, whatever the number of runs: caches of SQLite and of
the allocator fill, and tables of the interpreter are resized. Of 13,000 runs, the first 5,000 added
4 MB and the last 8,000 0.1 MB, while the number of objects stayed the same.
"""
