"""The `treadle` command: chat, list, show and watch conversations."""
