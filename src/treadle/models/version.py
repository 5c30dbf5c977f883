"""Removes dates from names of models, so that tables need not list every version."""


def without_date(model: str) -> str:
    """Returns the name of a model without the date of its version, if it has one."""
    name, _, version = model.rpartition("-")
    if version.isdigit() and len(version) == 8:  # as in claude-sonnet-4-5-20250929
        return name
    parts = model.rsplit("-", 3)  # as in gpt-5-2025-08-07
    if len(parts) == 4 and [len(part) for part in parts[1:]] == [4, 2, 2]:
        return parts[0] if "".join(parts[1:]).isdigit() else model
    return model
