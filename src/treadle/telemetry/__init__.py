"""What operators see of runs: spans and metrics, made of the events of threads."""
