"""The archive: finds messages and inserted texts of all threads, by words and by meaning."""
