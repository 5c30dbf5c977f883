"""Memory blocks: how models read and edit them, and where their changes are kept."""
