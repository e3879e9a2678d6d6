"""`raykd teacher inspect`: a checkpoint's origin, content and the methods that it can teach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raykd.export.student import WEIGHTS
from raykd.export.trial import STUDENT
from trainables.core.errors import UserError
from trainables.methods import methods
from trainables.methods.base import NEEDS, TAUGHT
from trainables.networks.backbones import build_backbone
from trainables.networks.heads import head_text
from trainables.spec.trial import ModelSpec
from trainables.teachers.architecture import COMPARED, guess, twins_remark
from trainables.teachers.feeding import Feeding, feeding
from trainables.teachers.named_weights import is_name, named_weights
from trainables.teachers.pretrained.read import CheckpointFacts, read_checkpoint
from trainables.teachers.teacher import FIT, lacks, verify

_NO_ARCH = "give its architecture with --arch NAME to check the rest"


def inspect(path: Path, arch: str | None = None) -> dict[str, Any]:
    """A description of the file in plain JSON. `UserError` if it cannot be read or does not fit `arch`.

    `path` may also be a folder that `raykd export` or timm wrote, or the name of published weights.
    """
    path = _in_folder(path)
    if not path.exists() and is_name(str(path)):
        try:
            named = named_weights(str(path), {}, "FILE")
        except UserError as error:
            raise error.at("FILE") from None
        path, arch = named.checkpoint, arch or named.arch
    read = read_checkpoint(path, "FILE")
    facts, found = read.facts, guess(read)
    model = found.model if found is not None else None
    if arch is not None and (model is None or model.arch != arch):
        model = ModelSpec(arch=arch)
    if model is not None:
        facts = verify(read, model)
    taken = feeding(model.arch if model is not None else None, read)
    remarks = [facts.remark]
    if model is not None and (found is None or arch is not None or found.by == COMPARED):
        remarks.append(twins_remark(facts, model.arch))
    return {
        "file": str(path),
        "origin": facts.origin,
        "container": facts.container,
        "architecture": {
            "said": facts.arch,
            "guess": found.model.model_dump() if found is not None else None,
            "by": found.by if found is not None else None,
            "asked": arch,
            "verified": model is not None,
        },
        "parameters": facts.parameters,
        "precision": facts.precision,
        "roles": dict(facts.roles),
        "head": {
            "layers": [list(layer) for layer in facts.head],
            "text": head_text(facts.head),
            "problem": facts.head_problem,
        },
        "classes": facts.classes,
        "normalisation": _pixels(taken, model),
        "preprocessing": {**taken.preprocessing._asdict(), "channels": taken.fields()["channels"]},
        "sha256": facts.sha256,
        "remark": "; ".join(filter(None, remarks)),
        "serves": _serves(facts, model),
        "paste": _paste(path, model),
    }


def _pixels(found: Feeding, model: ModelSpec | None) -> dict[str, Any]:
    """The network's pixel normalisation as a sweep would fill it in, its range of values, and its source.

    These are None if they depend on the architecture and that is unknown.
    """
    known = model is not None or found.sure
    mean, std = found.normalisation if known else (None, None)
    return {
        "mean": mean,
        "std": std,
        "range": list(found.normalisation.range()) if known else None,
        "by": found.by,
        "sure": found.sure,
        "remark": found.remark,
    }


def _in_folder(path: Path) -> Path:
    """The weights in an exported student's folder; `path` itself if it is not such a folder."""
    folder = path.expanduser()
    found = (place / WEIGHTS for place in (folder, folder / STUDENT))
    return next((file for file in found if file.is_file()), path)


def _serves(facts: CheckpointFacts, model: ModelSpec | None) -> dict[str, dict[str, Any]]:
    """Name of a method with a teacher -> `can` (true, false, null: unknown) and `why`."""
    stages = model is not None and bool(build_backbone(model, 0).stages)
    found: dict[str, dict[str, Any]] = {}
    for name, method in methods().items():
        if not method.needs & TAUGHT:
            continue
        lack = lacks(facts, method.needs)
        if lack is not None:
            fitted = lacks(facts, method.needs - {"teacher_head"}) is None
            found[name] = {"can": False, "why": f"it {lack.what}" + (f"; or {FIT}" if fitted else "")}
        elif model is None:
            found[name] = {"can": None, "why": _NO_ARCH}
        elif "feature_maps" in method.needs and not stages:
            found[name] = {"can": False, "why": "it compares feature maps, and this architecture has none"}
        else:
            asked = ", ".join(NEEDS[need] for need in sorted(method.may_need))
            beside = ["needs labels"] * ("labels" in method.needs)
            beside += ["from its features, since it has no head"] * (method.embeds and not facts.head)
            beside += [f"some settings need {asked}"] * bool(asked)
            found[name] = {"can": True, "why": "; ".join(beside)}
    return found


def _paste(path: Path, model: ModelSpec | None) -> str:
    """YAML lines that set this file as the teacher of a search space."""
    lines = ["teacher:", f"  arch: {model.arch if model is not None else 'NAME'}"]
    if model is not None and model.options:
        lines.append(f"  options: {json.dumps(model.options)}")  # JSON is YAML
    return "\n".join([*lines, f"  checkpoint: {json.dumps(str(path))}"])
