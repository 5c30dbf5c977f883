"""Removes dates from names of models, so that tables need not list every version."""

import re

# The version behind the name of a model of Bedrock, its region, and what is in front of it in an
# ARN; a profile that is served in all regions has another price.
_VERSION = re.compile(r"-v\d+(?::\d+)?$")
REGION = r"(?:us-gov|apac|[a-z]{2})\.(?=[a-z0-9]+\.)"
"""The region in front of the id of a model of Bedrock, as a regular expression."""
_REGION = re.compile(f"^{REGION}")
_PROFILE = re.compile(r"^arn:aws[a-z-]*:bedrock:.*(?:inference-profile|foundation-model)/")


def without_date(model: str) -> str:
    """Returns the name of a model without the date of its version, if it has one.

    Of a model of Bedrock, the version and the region are left out as well.
    """
    if "." in model:
        model = _REGION.sub("", _VERSION.sub("", _PROFILE.sub("", model)))
    name, _, version = model.rpartition("-")
    if version.isdigit() and len(version) == 8:  # as in claude-sonnet-4-5-20250929
        return name
    parts = model.rsplit("-", 3)  # as in gpt-5-2025-08-07
    if len(parts) == 4 and [len(part) for part in parts[1:]] == [4, 2, 2]:
        return parts[0] if "".join(parts[1:]).isdigit() else model
    return model
