"""The wire formats of the providers: decoders of requests, encoders of responses."""
