"""Memory blocks: what may be asked of them, and how a model reads them."""
