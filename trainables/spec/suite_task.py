"""What every task of a suite says: its kind, and the images that it is about. Read without torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from trainables.spec.parse import as_mapping, build
from trainables.spec.trial import DataSpec, Spec, digest

# What belongs to the data set itself; another data set starts from the defaults of these.
_OF_THE_SET = ("name", "path", "splits", "classes", "download", "validation", "split_seed", "max_undecodable")
_OF_JPEG = ("short_side", "decoder")  # fields that go with `keep: jpeg` alone


class SuiteTask(Spec):
    """One task: what is done with a network, on which images."""

    task: str = Field(description="the kind")
    data: Annotated[dict[str, Any], BeforeValidator(lambda raw: as_mapping(raw, ""))] = Field(
        {}, description="over the student's own data; with a `name` of its own it is a transfer to that set"
    )

    def data_of(self, data: DataSpec) -> DataSpec:
        """The images of the task for a network trained on `data`: its own, or another set at its size.

        Raises `UserError` at `data`.
        """
        if not self.data:
            return data
        before = data.model_dump()
        if self.data.get("name", data.name) != data.name:
            before = {name: value for name, value in before.items() if name not in _OF_THE_SET}
        if self.data.get("keep") == "raw":
            before = {name: value for name, value in before.items() if name not in _OF_JPEG}
        return build(DataSpec, {**before, **self.data}, "data")

    def images(self, data: DataSpec) -> str:
        """The name of its images, for people."""
        return self.data_of(data).name

    def split(self, data: DataSpec) -> str:
        """The name of the test images that it reads: the same for the same images, at whatever size."""
        of = self.data_of(data)
        own = {"splits": of.splits, "classes": of.classes, "path": of.path and str(of.path)}
        said = {name: value for name, value in own.items() if value}
        return f"{of.name}-{digest(said)}" if said else of.name

    def identity(self) -> dict[str, Any]:
        """What of the task, but for its data, defines a result, as plain types."""
        return self.model_dump(mode="json", exclude={"data"})

    def key(self, data: DataSpec) -> str:
        """8 hex digits of all that defines the task for a network trained on `data`.

        Where the network's own images lie does not count. A path of the task itself says which images it has.
        """
        of_data = self.data_of(data).model_dump(mode="json", exclude={"path", "download", "max_undecodable"})
        if self.data.get("path") is not None:
            of_data["split"] = self.split(data)
        return digest({**self.identity(), "data": of_data})
