"""Writing a student as a graph of its computation, and checking that graph against the student.

Imported late, because it needs torch.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from raykd.export.formats import FORMATS, ONNX, OPTION, TORCH_EXPORT
from trainables.core.errors import UserError, first_line
from trainables.networks.backbones import noise

Shape = Sequence[int]  # of an image: (channels, height, width)
BATCHES = (1, 2, 5)  # the graph is traced with 2; torch.export treats 1 as a special case
TOLERANCE = 1e-4  # of the largest feature; float32 sums in another order stay near 1e-6
INPUT, OUTPUT, BATCH = "images", "features", "batch"
ABOUT = "student.json"  # in a .pt2


class Checked(NamedTuple):
    """A graph that was written, and how it compared with the student."""

    format: str
    file: str
    difference: float  # the largest one of features, relative to the largest feature; over all batches
    by: str  # package and version that computed the features

    def text(self) -> str:
        """What was found, as a sentence without a full stop."""
        found = "are the student's to the last bit"
        if self.difference:
            found = f"differ from the student's by at most {self.difference:.1e} of the largest one"
        batches = ", ".join(map(str, BATCHES))
        return (
            f"{self.file}: its features {found} ({TOLERANCE:.0e} is allowed), on batches of {batches} random "
            f"images, by {self.by}"
        )


class _Graph(NamedTuple):
    write: Callable[[ExportedProgram, Path, Mapping[str, Any]], None]
    opened: Callable[[Path], Callable[[Tensor], Tensor]]
    package: str  # that computes it


def write_graphs(
    formats: Sequence[str], model: nn.Module, shape: Shape, folder: Path, about: Mapping[str, Any]
) -> list[Checked]:
    """Write those of `formats` that are graphs into `folder`; `about` goes into each file.

    `model` is in eval mode on the CPU. It takes images (B, *shape), and so does a graph, for every B.
    Raises `UserError` where the model cannot be traced or converted, or where a graph computes other features
    or takes no other B.
    """
    names = [name for name in formats if name in _GRAPHS]
    if not names:
        return []
    with _refused(names[0], model), _quiet():
        program = torch.export.export(
            model, (noise(shape[-1])[:, : shape[0]],), dynamic_shapes=({0: Dim(BATCH)},)
        )
    return [_written(name, program, model, shape, folder, about) for name in names]


def _written(
    name: str,
    program: ExportedProgram,
    model: nn.Module,
    shape: Shape,
    folder: Path,
    about: Mapping[str, Any],
) -> Checked:
    graph, path = _GRAPHS[name], folder / FORMATS[name].place
    with _refused(name, model), _quiet():
        graph.write(program, path, about)
        found = difference(graph.opened(path), model, shape)
    if not found <= TOLERANCE:  # not `>`, which nan would pass by
        raise UserError(
            OPTION,
            f"its {name} computes other features: they differ by {found:.1e} of the largest one",
            value=name,
            expected=f"at most {TOLERANCE:.0e}; leave {name} out",
            hints=["Nothing was written."],
        )
    return Checked(name, path.name, found, f"{graph.package} {metadata.version(graph.package)}")


def difference(opened: Callable[[Tensor], Tensor], model: nn.Module, shape: Shape) -> float:
    """The largest difference of features over random batches, relative to the largest feature of a batch."""
    generator, found = torch.Generator().manual_seed(0), []
    with torch.no_grad():
        for batch in BATCHES:
            images = torch.randn(batch, *shape, generator=generator)  # as normalised pixels are
            wanted = model(images)
            found.append((opened(images) - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
    return float(torch.stack(found).max())


def _write_onnx(program: ExportedProgram, path: Path, about: Mapping[str, Any]) -> None:
    graph = torch.onnx.export(
        program,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: BATCH},),  # its name in the file
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert graph is not None
    for key, value in about.items():
        graph.model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value)
    graph.save(path)


def _open_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _write_torch_export(program: ExportedProgram, path: Path, about: Mapping[str, Any]) -> None:
    torch.export.save(program, path, extra_files={ABOUT: json.dumps(about)})


def _open_torch_export(path: Path) -> Callable[[Tensor], Tensor]:
    opened: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return opened


_GRAPHS = {
    ONNX: _Graph(_write_onnx, _open_onnx, "onnxruntime"),
    TORCH_EXPORT: _Graph(_write_torch_export, _open_torch_export, "torch"),
}


@contextlib.contextmanager
def _refused(name: str, model: nn.Module) -> Iterator[None]:
    """What torch or onnxruntime raise inside, as a `UserError` with the reason."""
    try:
        yield
    except Exception as error:  # both raise errors of many classes that they do not document
        while error.__cause__ is not None and isinstance(error.__cause__, Exception):
            error = error.__cause__
        reason, *_ = first_line(error).split(" For more information")
        raise UserError(
            OPTION,
            f"this student ({type(model).__name__}) cannot be written as {name}: {reason}",
            value=name,
            expected=f"a network that becomes one graph for every batch size; leave {name} out",
            hints=["Nothing was written."],
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of the exporters, which are about their own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
