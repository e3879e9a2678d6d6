"""The README.md of an exported student: its use, its scores with intervals, and its training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raykd.export.formats import ONNX
from raykd.export.graph_card import graph_parts
from raykd.records.history import History, TrialRecord
from trainables.core.safe_text import code, line, markdown
from trainables.spec.trial import TrialSpec

if TYPE_CHECKING:
    from raykd.export.graphs import Checked
    from raykd.export.student import Estimate, Size, TestScores
    from trainables.networks.backbones import Backbone


def model_card(
    history: History,
    record: TrialRecord,
    trial: TrialSpec,
    facts: Mapping[str, str],
    scores: TestScores | None,
    teacher: TestScores | None,
    lines: str,
    size: Size,
    student: Backbone,
    checks: Sequence[Checked],
    licence: str | None,
    evaluations: Iterable[str] = (),
) -> str:
    """The card as Markdown.

    `facts` are the metadata of the weights' file (score, epoch). `scores` and `teacher` are the test scores
    of the student and of its teacher; None if there are none. `lines` is the Python code that opens the
    student, `student` the network, `checks` what is known of its graphs, `licence` an identifier of the
    Hugging Face hub, `evaluations` the paragraphs about tasks of suites.
    """
    from raykd.export.student import timm_opens
    from trainables.methods import load_method

    spec = history.spec
    in_config = "; `student/config.json` says so where timm reads it" if timm_opens(trial.student) else ""
    parts = [
        _front_matter(trial, checks, licence),
        f"# {markdown(trial.student.arch)}, distilled by {trial.method} ({record.trial})",
        f"{load_method(trial.method).summary}. Trial `{record.trial}` of the raykd sweep `{spec['name']}`: "
        f"the student after epoch {markdown(facts['epoch'])} of {trial.epochs}, where its score was best.",
        "## Use",
        f"```python\n{lines}\n```",
        f"It gives {size.features} features an image and has {size.parameters:,} parameters. It takes "
        f"{_images(trial, student)}{in_config}. It has no classifier.",
        *graph_parts(checks),
        "## Score",
        *_scores(trial, facts, scores, teacher),
        *_comparison(history, record),
        *evaluations,
        "## How it was made",
        *_settings(record, trial),
        "## Repeat it",
        "```\nraykd run config.yaml\n```",
        "On a CPU with as many threads this gives the same curve to the last bit; `command.txt` holds the "
        "command for the machine where this was exported." + _stopped(record, trial),
        _versions(history),
        "## Licence",
        _licence(licence),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _images(trial: TrialSpec, student: Backbone) -> str:
    """The images that its probes gave it, from a picture to the network."""
    from raykd.export.student import preprocessing

    does, inputs = preprocessing(trial, student), student.inputs
    side, share = does["input_size"][-1], does["crop_pct"]
    kind, normalised = inputs.channels.upper(), f"normalised by {inputs.normalisation.text()}"
    if student.in_chans == 1:
        (mean,), (std,) = student.pixels
        kind = "grey"
        normalised = f"luminance by ITU-R BT.601, normalised by mean {mean:.4g} and deviation {std:.4g}"
    return (
        f"{kind} images of {side} px: the middle of pictures whose shorter side was resized to "
        f"{round(side / share)} px ({does['interpolation']}, crop share {share:.4g}), {normalised}"
    )


def _licence(licence: str | None) -> str:
    if licence is None:
        return (
            "None was chosen (`raykd export --licence`). Choose one that your data and the teacher's weights "
            "allow, and put it into the first lines of this file as `license:`."
        )
    other = " Its text belongs into a file `LICENSE` here, its name into `license_name`."
    return (
        f"`{licence}`, chosen by whoever exported this student. raykd does not check that the data and the "
        f"teacher's weights allow it.{other if licence == 'other' else ''}"
    )


def _front_matter(trial: TrialSpec, checks: Sequence[Checked], licence: str | None) -> str:
    library, prefixed, _ = trial.student.arch.partition("/")
    library = library if prefixed else "timm"
    tags = ["feature-extraction", "knowledge-distillation", "self-supervised", "raykd"]
    tags += [check.format for check in checks if check.format == ONNX]
    said = "" if licence is None else f"license: {licence}\n"
    head = f"---\nlibrary_name: {line(library)}\n{said}tags:\n"
    return head + "".join(f"- {tag}\n" for tag in tags) + "---"


def _scores(
    trial: TrialSpec,
    facts: Mapping[str, str],
    scores: TestScores | None,
    teacher: TestScores | None,
) -> Iterable[str]:
    searched = f"On the validation part, which the search looked at, {trial.probe.score} was"
    search = f"{searched} {_number(facts['score'])}."
    if trial.probe.point != "backbone":
        search += f" It was measured at the {trial.probe.point}, which is not part of this student."
    if scores is None:
        yield f"There is no labelled test split. {search}"
        return
    sides = [side.probes for side in (scores, teacher) if side is not None]
    head = ["probe of frozen features", "test, %", "95 % interval", "its teacher", "95 % interval"]
    rows = [[name, *(text for side in sides for text in _estimate(side[name]))] for name in scores.probes]
    yield _table(head[: 1 + 2 * len(sides)], rows)
    yield (
        f"Probes were fitted on {scores.fitted:,} labelled images (training and validation part) and read on "
        f"{scores.tested:,} test images, once, for this card. Intervals: Wilson's over the test images; for "
        "k-shot probes the draws of the labelled images as well. They say nothing of another training seed."
    )
    yield search


def _comparison(history: History, record: TrialRecord) -> Iterable[str]:
    if not history.references:
        return
    rows = [
        [markdown(r["label"]), _number(r["metrics"].get("score", math.nan))]
        for r in history.references.values()
    ]
    rows.append([f"this student ({record.trial})", _number(record.best[0] if record.best else math.nan)])
    yield "Beside it, by the same probe on the same validation part:"
    yield _table(["", "validation, %"], rows)


def _estimate(found: Estimate) -> tuple[str, str]:
    return _number(found.score), f"{_number(found.low)} to {_number(found.high)}"


def _settings(record: TrialRecord, trial: TrialSpec) -> Iterable[str]:
    data = trial.data
    yield f"Data: `{data.name}` at {data.image_size} px, views `{trial.views.recipe}`."
    if trial.student.checkpoint is not None:
        yield f"The student started from {code(trial.student.checkpoint.name)}."
    if trial.student.train is not None:
        before = trial.student.train
        yield f"The student was trained before by {before.method}, epochs: {before.epochs}."
    for teacher in trial.teachers:
        if teacher.checkpoint is not None:
            origin = f"from {code(teacher.checkpoint.name)}, its pixels by {teacher.inputs.text()}"
            origin += f", at {teacher.side(data)} px" if teacher.image_size else ""
        else:
            assert teacher.train is not None
            origin = f"trained on the same data by {teacher.train.method}, epochs: {teacher.train.epochs}"
        head = f", with a head fitted in {teacher.head.epochs} epochs" if teacher.head is not None else ""
        yield f"Teacher: {markdown(teacher.arch)}, {origin}{head}."
    if record.params:
        yield "What the search chose:"
        yield _table(["axis", "value"], [[code(k), code(json.dumps(v))] for k, v in record.params.items()])
    yield "Every other setting is in `config.yaml`."


def _stopped(record: TrialRecord, trial: TrialSpec) -> str:
    if record.status == "finished":
        return ""
    return (
        f" This trial is `{record.status}` at epoch {record.epoch}; the repetition goes on to epoch "
        f"{trial.epochs}, and may end with a better score."
    )


def _versions(history: History) -> str:
    versions = (history.sweep or {}).get("versions", {})
    return f"Made with {', '.join(f'{markdown(name)} {markdown(of)}' for name, of in versions.items())}."


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _number(value: Any) -> str:
    return f"{float(value):.2f}"
