"""The agent of `make demo`, and its tools."""
