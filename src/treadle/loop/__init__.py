"""The agent loop: what an agent is, and how a run of it goes."""
