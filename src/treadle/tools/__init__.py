"""Tools: typed functions the model may call."""
