"""The metrics. `work` measures inside a worker; `rows` runs the workers and judges the figures."""
