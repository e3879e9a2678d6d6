"""The cluster file that `ray up` takes: read, checked against Ray's schema, and the nodes that it names."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from trainables.core.errors import UserError
from trainables.core.files import expanded


def load_cluster(path: Path) -> dict[str, Any]:
    """A cluster file as Ray reads it, with its defaults. `UserError` names the field that is wrong."""
    raw = _read(path)
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):  # Ray prints an error, and then exits
            config: dict[str, Any] = prepare_config(raw)
            validate_config(config)
    except ValidationError as error:
        raise _misplaced(path, error) from None
    except SystemExit:
        raise UserError(str(path), _one_line(said.getvalue())) from None
    except Exception as error:
        raise UserError(str(path), f"Ray does not take it: {_one_line(str(error)) or repr(error)}") from None
    return config


def expected_nodes(raw: dict[str, Any]) -> list[str]:
    """The nodes of a cluster file, from `load_cluster`: their addresses if it names them, else one number."""
    provider = raw["provider"]
    if provider.get("head_ip"):
        return [provider["head_ip"], *provider.get("worker_ips", [])]
    types, head = raw.get("available_node_types", {}), raw.get("head_node_type")
    return [str(1 + sum(kind.get("min_workers", 0) for name, kind in types.items() if name != head))]


def on_the_head(path: str, raw: dict[str, Any], folder: Path) -> str:
    """The path on the head of a file of this machine that `file_mounts` copies; `path` if it is none.

    `folder` is where `ray up` was typed: relative sources in `file_mounts` start there. Raises `UserError`
    for a file that `file_mounts` does not copy.
    """
    here = expanded(path)
    if not here.is_file():
        return path
    for target, source in raw.get("file_mounts", {}).items():
        root = (folder / expanded(source)).resolve()
        if here.resolve().is_relative_to(root):
            return f"{target.rstrip('/')}/{here.resolve().relative_to(root)}"
    raise UserError(
        "SPEC",
        "this file does not get to the head",
        value=path,
        expected="a file in a folder that `file_mounts` of the cluster file brings there, or a space's name",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError("--cluster", f"cannot be read: {error.strerror}", value=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"is no YAML: {_one_line(str(error))}") from None
    if not isinstance(raw, dict):
        raise UserError(str(path), "holds no settings", expected="a cluster file as `ray up` takes it")
    if "apiVersion" in raw:
        raise UserError(
            "--cluster",
            f"{path} is a Kubernetes resource, which `ray up` does not take",
            expected="`kubectl exec` into the head pod, and there `raykd doctor SPEC --address auto`",
        )
    for field in ("cluster_name", "provider"):
        if not raw.get(field):
            raise UserError(field, f"is missing in {path}", choices=raw, value=field)
    return raw


def _misplaced(path: Path, error: Any) -> UserError:
    """An error of the schema in the form of a `UserError`."""
    field = ".".join(str(part) for part in error.absolute_path) or str(path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        for name in sorted(set(error.instance) - set(known)):
            whole = name if field == str(path) else f"{field}.{name}"
            return UserError(whole, f"{path} has no such field", value=name, choices=known)
    return UserError(field, f"{path}: {_one_line(error.message)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]
