"""Attacks nodes that share a PostgreSQL database, and looks whether anything was lost or doubled.

`python -m chaos.cluster` starts a database server and three nodes, each a process. Conversations
continue while nodes are killed, stopped in their tracks, ended in order or cut off from the
database, and while the server is restarted. Each node watches conversations, whichever node drives
them. In the end every message has one run that has completed, no tool that is not idempotent ran
twice, every text is the one that the model wrote, and every reader had it exactly.
"""
