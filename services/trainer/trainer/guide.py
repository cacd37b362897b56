"""The guide to a training spec, as clients ask for it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from openledger_client.training_parameters import GUIDE, Parameter
from servicekit.errors import InvalidArgument


def describe(name: str) -> Sequence[Parameter]:
    """Returns one value of a spec, or all of them for "". Raises InvalidArgument, which names the nearest."""
    if not name:
        return tuple(GUIDE.values())
    if name in GUIDE:
        return (GUIDE[name],)
    near = difflib.get_close_matches(name, GUIDE, 1, cutoff=0.0)
    raise InvalidArgument(
        "parameter", "known_parameter", f"is no value of a training spec; the nearest is {near[0]}", name
    )
