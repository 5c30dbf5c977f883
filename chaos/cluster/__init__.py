"""Attacks nodes that share a PostgreSQL database, and looks whether anything was lost or doubled.

`python -m chaos.cluster` starts a database server and three nodes, each a process. Conversations
continue, calls are answered on all nodes at once, and threads are deleted when they have expired or
were used, while nodes are killed, stopped in their tracks, ended in order or cut off from the
database, and while the server is restarted. Each node watches conversations, whichever node drives
them. In the end every message has one run that has completed, no tool that is not idempotent ran
twice, each answer that was acknowledged counted, every text is the one that the model wrote, every
reader had it exactly, and a desk was told of each run and each deletion once.
"""
