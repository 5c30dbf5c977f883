"""Journals: keep the events of threads durably, before any subscriber sees them."""
