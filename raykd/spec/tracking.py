"""`track`: the experiment trackers that are told of a sweep, and where its runs go there.

    track: [wandb, mlflow]
    track: {wandb: {project: students, mode: online}, mlflow: {uri: "http://tracker:5000"}}

A tracker is one more view of the ledger. It changes no trial, so it may be changed on resume.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata, util
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_serializer

from trainables.core.errors import UserError
from trainables.spec.trial import Spec

# What Weights & Biases takes as the name of a project; wandb.Settings refuses others only once it is running.
_PROJECT = re.compile(r"[^/\\#?%:\s][^/\\#?%:]{0,127}")
# Schemes of mlflow's stores. Packages add others by entry points of this group.
_STORES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks")
_ENTRY_POINTS = "mlflow.tracking_store"


class WandbSpec(Spec):
    """Weights & Biases: one run a trial, in the group of the sweep's name."""

    project: str | None = Field(None, description="default: WANDB_PROJECT, or raykd")
    entity: str | None = Field(None, description="user or team; default: WANDB_ENTITY, or your own")
    mode: Literal["offline", "online"] | None = Field(
        None,
        description="default: WANDB_MODE; without it online if you have logged in, else offline: files for "
        "`wandb sync`",
    )

    @field_validator("project", "entity")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        if name is not None and not _PROJECT.fullmatch(name):
            raise UserError(
                "", "no name of Weights & Biases", value=name, expected="1 to 128, none of /\\#?%:"
            )
        return name


class MlflowSpec(Spec):
    """MLflow: one run a trial, in the experiment of the sweep's name."""

    experiment: str | None = Field(None, description="default: MLFLOW_EXPERIMENT_NAME, or the sweep's name")
    uri: str | None = Field(
        None, description="default: MLFLOW_TRACKING_URI, or tracking/mlflow.db in the sweep's folder"
    )

    @field_validator("experiment")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        if name is not None and not name.strip():
            raise UserError("", "is empty", value=name, expected="the name of an experiment")
        return name

    @field_validator("uri")
    @classmethod
    def _known(cls, uri: str | None) -> str | None:
        if uri is None or uri == "databricks":
            return uri
        scheme, colon, rest = uri.partition(":")
        known = (*_STORES, *(point.name for point in metadata.entry_points(group=_ENTRY_POINTS)))
        expected = "such as http://HOST:5000, or sqlite:////FOLDER/mlflow.db"
        if not colon or not rest.strip("/"):
            raise UserError("", "is no URI of a store of mlflow", value=uri, expected=expected)
        if scheme.partition("+")[0] not in known:
            raise UserError("", "no such store of mlflow", value=uri, expected=expected, choices=known)
        return uri


def _by_name(given: Any) -> Any:
    """`{name: options}` of a name, a list of names, or such a mapping."""
    if isinstance(given, Mapping):
        return {name: {} if options is None else options for name, options in given.items()}
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple):
        return {} if names is None else names
    for at, name in enumerate(names):
        place = str(at) if names is given else ""
        if name not in list(TrackSpec.model_fields):  # a list, because `name` may be anything
            raise UserError(place, "no such tracker", value=name, choices=TrackSpec.model_fields)
        if name in names[:at]:
            raise UserError(place, "stands there twice", value=name)
    return {name: {} for name in names}


class TrackSpec(Spec):
    """The trackers by name, each with its options; None for those that are told nothing."""

    wandb: WandbSpec | None = None
    mlflow: MlflowSpec | None = None

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {name: options.model_dump(exclude_none=True) for name, options in self.named().items()}

    def named(self) -> dict[str, WandbSpec | MlflowSpec]:
        """The trackers that are told, by name."""
        return {name: options for name in type(self).model_fields if (options := getattr(self, name))}


Track = Annotated[TrackSpec, BeforeValidator(_by_name)]


def check_installed(track: TrackSpec) -> None:
    """Raise `UserError` for a tracker whose package is not installed for this Python."""
    for name in track.named():
        found = util.find_spec(name)
        if found is None or found.origin is None:  # a folder of that name, such as wandb makes, is none
            raise UserError(
                f"track.{name}", "its package is not installed", expected=f"`pip install raykd[{name}]`"
            )
