"""Refuses to run when one of our flat package names resolves to somebody else's code.

`runtime`, `models` and the like are common names: a folder in the working directory or on PYTHONPATH may
shadow ours. Called first in every process of ours, before anything else of ours is imported; so this file
imports nothing of ours itself.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGES = ("runtime", "actors", "devices", "gateway", "models")


class ForeignCode(ImportError):
    """One of our names is taken by other code; `do` says how to free it."""

    code = "foreign_code"
    do = "start in another folder, or take that folder off PYTHONPATH"


def check() -> None:
    """Returns when every package lies beside this one. Imports none of them. Raises ForeignCode."""
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # a module of this name without a spec was put into sys.modules
            spec = None
        places: list[str] = []
        if spec is not None:
            places = list(spec.submodule_search_locations or ([spec.origin] if spec.origin else []))
        if [Path(place).resolve() for place in places] != [home / name]:
            found = ", ".join(places) or "nothing"
            raise ForeignCode(
                f"the package {name!r} resolves to {found}, not to {home / name}: {ForeignCode.do}", name=name
            )
