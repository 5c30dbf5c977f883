"""The events of a thread on their way to its subscribers."""
