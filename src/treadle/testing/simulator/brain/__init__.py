"""The demo model: what it says, and which tools it calls."""
