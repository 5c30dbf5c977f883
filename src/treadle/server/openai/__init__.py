"""What the protocols of OpenAI have in common: the form of errors, and the list of models."""
