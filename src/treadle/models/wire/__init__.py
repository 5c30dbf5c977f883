"""Providers' HTTP APIs: how requests are encoded and responses decoded. Pure."""
