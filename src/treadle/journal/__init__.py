"""What is true of a thread: its events, kept before anyone sees them."""
