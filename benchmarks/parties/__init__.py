"""The parties: treadle, its floor, the openai SDK, and what `make bench-peers` installs.

A module is imported only by its own worker, with the interpreter that has what it needs.
"""
