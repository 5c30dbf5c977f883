"""How providers speak: requests decoded, responses encoded."""
