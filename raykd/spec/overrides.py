"""`--set path=value`: one value laid over what a file says.

optim.lr=1e-3    fixed.views.strength=0.5    axes.gamma=[0.1, 1]    axes.gamma.log=[0.01, 1]    axes.gamma=
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raykd.spec.axis_parse import KINDS
from raykd.spec.document import parse_yaml
from raykd.spec.sections import SHORTHAND
from trainables.core.errors import UserError
from trainables.spec.parse import spelled_out
from trainables.training.flat_names import put


def lay_over(raw: dict[str, Any], override: str) -> dict[str, Any]:
    """`raw` with `path=value` laid over it; the value is YAML. Raises `UserError` for what is no override."""
    raw = spelled_out(raw, SHORTHAND)
    path, equals, text = override.partition("=")
    source = f"--set {override}"
    if not equals or not path.strip():
        raise UserError(source, "is not an override", expected="path=value, such as optim.lr=1e-3")
    keys = _keys(path.strip(), raw)
    value = parse_yaml(text, source)
    if keys[0] == "axes" and len(keys) == 3 and keys[2] in KINDS:
        # Another kind of range replaces the one in the file; its conditions stay.
        axis = _at(raw, keys[:2])
        kept = {"when": axis["when"]} if isinstance(axis, Mapping) and "when" in axis else {}
        return put(raw, keys[:2], {**kept, keys[2]: value})
    for depth in range(1, len(keys)):
        above = _at(raw, keys[:depth])
        if above is not None and not isinstance(above, Mapping):
            problem = f"`{'.'.join(keys[:depth])}` has no parts that could be set"
            raise UserError(".".join(keys), problem, value=above)
    return put(raw, keys, value)


def _at(raw: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """The value at a path; None where there is none."""
    here: Any = raw
    for key in keys:
        here = here.get(key) if isinstance(here, Mapping) else None
    return here


def _keys(path: str, raw: Mapping[str, Any]) -> list[str]:
    """The keys of a path. The names under `fixed` and `axes` may hold dots."""
    head, _, rest = path.partition(".")
    if head == "fixed" and rest:
        return [head, rest]
    if head == "axes" and rest:
        name, _, last = rest.rpartition(".")
        inside = name and last in (*KINDS, "step", "when") and rest not in (raw.get("axes") or {})
        return [head, name, last] if inside else [head, rest]
    keys = path.split(".")
    if not all(keys):
        raise UserError(f"--set {path}", "is not a path", expected="names with dots between")
    return keys
