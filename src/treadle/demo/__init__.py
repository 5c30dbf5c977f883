"""The demo model, and the demo agent of `treadle chat` with its tools."""
