"""What treadle costs, measured beside its floor, the openai SDK and other frameworks.

`make bench` runs it; `python -m benchmarks NAME...` runs the metrics named.
"""
