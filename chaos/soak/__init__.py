"""Wears a server for long: many runs, readers that are cut and come back, and no kill.

`python -m chaos.soak RUNS` starts a provider simulator and `treadle serve` in processes of their
own. Conversations of a few runs each are created, watched and deleted. Every reader must have each
text exactly, however often its connection was cut; at the end the memory of the server must be what
it was after a quarter of the runs, and so must the number of its open files and sockets.
"""
