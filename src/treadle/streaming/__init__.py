"""Parsers from bytes to model events: pure, synchronous, for chunks cut anywhere."""
