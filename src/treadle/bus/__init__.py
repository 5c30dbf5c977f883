"""Who hears of what happens on a thread."""
