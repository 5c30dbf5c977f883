"""The archive: what was said and noted on all threads, found again by words and by meaning."""
