"""Who drives a thread, and who takes over."""
