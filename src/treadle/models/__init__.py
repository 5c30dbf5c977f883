"""Language models: the port, the providers, retries and fallback."""
