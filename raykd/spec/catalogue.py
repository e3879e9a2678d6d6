"""What `raykd list` shows: everything that is chosen by its name, and the teachers of a storage.

Imports inside functions keep torch out of the lists that do not need it.
"""

from __future__ import annotations

import fnmatch
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raykd.spec.description import description_of
from raykd.spec.document import read_mapping
from raykd.spec.presets import presets_of
from raykd.spec.samplers import SAMPLERS
from raykd.spec.schedulers import SCHEDULERS
from raykd.spec.shipped import spaces, studies, suites
from raykd.storage.base import Storage
from trainables.core.errors import UserError
from trainables.core.files import is_own_file
from trainables.spec.data_spec import Spec

Table = tuple[list[str], list[list[Any]]]
SIZES = (8, 1024)  # pixels: the smallest and the largest side of an image that a trial may have

# Usual students and teachers of this field. Any other name of timm or torchvision works as well.
_STUDENTS = (
    "test_resnet", "test_efficientnet", "test_convnext", "test_vit",
    "raykd/mlp_32", "raykd/ae_32", "raykd/mlp_1200", "raykd/ae_64", "raykd/mlp", "raykd/resnet9",
    "mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv2_100", "mobilenetv1_100",
    "mobilenetv4_conv_small", "efficientnet_b0", "efficientnet_b1", "ghostnet_100", "regnetx_002",
    "convnext_atto", "vit_tiny_patch16_224", "deit_tiny_patch16_224",
    "resnet18", "resnet34", "resnet50", "torchvision/resnet18", "torchvision/mobilenet_v2",
)  # fmt: skip


def catalogue(
    what: str, storage: Storage, pattern: str | None = None, image_size: int | None = None
) -> Table:
    """Columns and rows of the list `what`. Raises `UserError` for a list that does not exist.

    `storage` is the folder whose trained teachers are listed. `pattern` (a name, or a pattern with * and ?)
    and `image_size` (pixels, 32 if not given) are for `students` only.
    """
    if what == "students":
        return _students(pattern, 32 if image_size is None else image_size)
    if what not in LISTS:
        raise UserError("list", "no such list", value=what, choices=[*LISTS, "students", "sweeps"])
    refuse_options_of_students(what, pattern, image_size)
    return LISTS[what](storage)


def copied(what: str, name: str, pattern: str | None, image_size: int | None) -> tuple[Path, str]:
    """Copy the search space, study or suite `name` that comes with raykd into the current folder.

    Returns the new file and the command that runs it. `what` is `spaces`, `studies` or `suites`. Raises
    `UserError` for another list, an unknown name, options of `students`, and where the file exists or cannot
    be written.
    """
    if what not in ("spaces", "studies", "suites"):
        expected = "`raykd list spaces --copy NAME`, or `studies` or `suites` in its place"
        raise UserError("--copy", f"does not go with `{what}`", value=name, expected=expected)
    refuse_options_of_students(what, pattern, image_size)
    known, noun, verb = spaces(), "search space", "run"
    if what == "studies":
        known, noun, verb = studies(), "study", "ablate"
    elif what == "suites":
        known, noun, verb = suites(), "suite", "evaluate SWEEP --on"
    if name not in known:
        raise UserError("--copy", f"no such {noun}", value=name, choices=known)
    content, path = known[name].read_bytes(), Path(known[name].name)
    try:
        with path.open("xb") as file:  # never over another file
            file.write(content)
    except FileExistsError:
        problem = f"{path} exists in this folder and is not overwritten"
        expected = "another folder, or that file moved away"
        raise UserError("--copy", problem, value=name, expected=expected) from None
    except OSError as error:
        raise UserError("--copy", f"{path} cannot be written: {error.strerror}", value=name) from None
    return path, shlex.join(["raykd", *verb.split(), str(path)])


def refuse_options_of_students(what: str, pattern: str | None, image_size: int | None) -> None:
    """`UserError` for an option of `students` that is given for another list."""
    for name, value in (("PATTERN", pattern), ("--image-size", image_size)):
        if value is not None:
            raise UserError(name, f"goes with `raykd list students`, not with `{what}`", value=value)


def _students(pattern: str | None, image_size: int) -> Table:
    """Networks and their sizes. The last column: options that a network needs, or why it cannot be built."""
    from trainables.networks.sizes import network_size
    from trainables.networks.zoo import architectures, check_name

    if not SIZES[0] <= image_size <= SIZES[1]:
        expected = f"pixels, {SIZES[0]} to {SIZES[1]}"
        raise UserError("--image-size", "no size of images", value=image_size, expected=expected)
    names = list(_STUDENTS) if pattern is None else sorted(fnmatch.filter(architectures(), pattern))
    if pattern is not None and not names:
        if set(pattern) & set("*?["):
            problem = "no architecture has such a name"
            raise UserError("PATTERN", problem, value=pattern, expected="'*net*', say")
        try:
            check_name(pattern, "student")
        except UserError as error:
            raise error.at("PATTERN") from None
        names = [pattern]  # a name of timm with a tag of pretrained weights
    rows: list[list[Any]] = []
    for name in names:
        try:
            size = network_size(name, image_size)
        except UserError as error:
            rows.append([name, None, None, None, None, None, error.message])
            continue
        needs = ", ".join(f"options.{option}: {value}" for option, value in size.options.items())
        sizes = [size.parameters / 1e6, size.multiply_adds / 1e6, size.features, size.map_size or None]
        rows.append([name, *sizes, size.small_stem, needs])
    columns = ["arch", "parameters, M", "multiply-adds, M", "features", "map side", "small stem", "needs"]
    return columns, rows


def _methods(storage: Storage) -> Table:
    from trainables.methods import methods

    rows = []
    for name, method in methods().items():
        both = (method.needs, method.may_need)
        always, sometimes = (", ".join(sorted(of)).replace("_", " ") for of in both)
        needs = (always or "nothing") + (f"; by setting {sometimes}" if sometimes else "")
        rows.append([name, method.summary, needs, ", ".join(method.presets)])
    return ["method", "what it does", "needs", "presets"], rows


def _spaces(storage: Storage) -> Table:
    return ["space", "about"], [[name, description_of(path).about or ""] for name, path in spaces().items()]


def _studies(storage: Storage) -> Table:
    rows = []
    for name, path in studies().items():
        said = description_of(path)
        rows.append([name, said.about or "", said.cost or "", ", ".join(presets_of(read_mapping(path)))])
    return ["study", "about", "cost", "presets"], rows


def _suites(storage: Storage) -> Table:
    rows = []
    for name, path in suites().items():
        said = description_of(path)
        rows.append([name, said.about or "", said.cost or "", ", ".join(read_mapping(path)["tasks"])])
    return ["suite", "about", "cost", "tasks"], rows


def _data(storage: Storage) -> Table:
    from trainables.data.sources import sources

    rows = [[name, source.metric.replace("_", " "), source.summary] for name, source in sources().items()]
    return ["data", "metric", "about"], rows


def _probes(storage: Storage) -> Table:
    from trainables.evaluation.probes import probes

    rows = []
    for name, probe in probes().items():
        use = "probe.score or probe.record" if probe.higher_is_better else "probe.record"
        rows.append([name, probe.summary, use, "labels" if probe.needs_labels else "nothing"])
    return ["probe", "what it measures", "goes into", "needs"], rows


def _samplers(storage: Storage) -> Table:
    return _by_settings("sampler", SAMPLERS)


def _schedulers(storage: Storage) -> Table:
    return _by_settings("scheduler", SCHEDULERS)


def _by_settings(what: str, kinds: Mapping[str, type[Spec]]) -> Table:
    """Each kind with the first sentence of its docstring, and its settings with their defaults."""
    rows = []
    for name, kind in kinds.items():
        own = {setting: field for setting, field in kind.model_fields.items() if setting != "name"}
        settings = ", ".join(f"{setting} {json.dumps(field.default)}" for setting, field in own.items())
        rows.append([name, (kind.__doc__ or "").partition("\n")[0], settings or "none"])
    return [what, "what it does", "settings and their defaults"], rows


def _teachers(storage: Storage) -> Table:
    """The teachers that were trained in this storage. Checkpoints from elsewhere are not listed."""
    from trainables.core.checksums import UNREADABLE, read_with_checksum

    storage.fetch_teachers()
    rows = []
    for path in sorted(storage.teachers().glob("*.safetensors")):
        try:
            is_own_file(path)  # raises for a link or a pipe
            trial = _teacher_of(read_with_checksum(path)[1])
        except UNREADABLE:
            trial = {"student": {"arch": "(damaged)"}}
        arch, data = trial.get("student", {}).get("arch", ""), trial.get("data", {}).get("name", "")
        rows.append([path.stem, arch, trial.get("method", ""), str(trial.get("epochs", "")), data, str(path)])
    return ["teacher", "arch", "method", "epochs", "data", "file"], rows


def _teacher_of(facts: Mapping[str, str]) -> dict[str, Any]:
    """The trial that a teacher's file was trained by, from the file's metadata; {} where it holds none.

    Raises `ValueError` where the metadata are not those of a trial.
    """
    found: dict[str, Any] = json.loads(facts.get("trial", "{}"))
    if not (isinstance(found, dict) and all(isinstance(found.get(k, {}), dict) for k in ("student", "data"))):
        raise ValueError("no training run")
    return found


LISTS: dict[str, Callable[[Storage], Table]] = {
    "methods": _methods,
    "spaces": _spaces,
    "studies": _studies,
    "suites": _suites,
    "data": _data,
    "teachers": _teachers,
    "probes": _probes,
    "samplers": _samplers,
    "schedulers": _schedulers,
}
