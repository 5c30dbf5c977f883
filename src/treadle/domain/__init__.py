"""Threads as values: items, events, and the state that events fold into.

No I/O, no clock, no event loop. The state and every decision are functions of their arguments. The
one exception is `ids.new_id`: a new item or message gets a random id, and nothing depends on which.
"""
