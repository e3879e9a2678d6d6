"""Opening a teacher's file safely: its content, or one line with the reason why it cannot be read.

No code in a file is run, and no file takes far more memory than its own size. torch's advice in error texts
is never repeated, because it tells users to switch the safe reader off.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trainables.core.checksums import UNREADABLE, read_with_checksum
from trainables.core.errors import UserError
from trainables.core.limits import memory_left
from trainables.core.shards import parts_of
from trainables.teachers.pretrained.records import RECORDS, record_for

_MOST_NAMES = 64  # classes that one file may name
# A file may unpack to _SMALL bytes, or to _INFLATION times its size: deflated weights have at least half the
# size of stored ones.
_SMALL, _INFLATION = 64 << 20, 8


@dataclass(frozen=True)
class Opened:
    """The content of a file, before weights are searched in it."""

    content: Mapping[Any, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)  # of safetensors
    flat: bool = False  # only tensors by name


def open_checkpoint(path: Path, name: str) -> Opened:
    """The content of the file. Raises `UserError` at the field `name` with the reason if it is unreadable."""
    if not path.is_file():
        raise _no_file(path, name)
    try:
        parts = parts_of(path)
    except (ValueError, OSError) as error:
        raise _unreadable(path, name, str(error)) from None
    return _open_file(path, name) if parts is None else _open_parts(path, parts, name)


def _open_parts(path: Path, parts: Sequence[Path], name: str) -> Opened:
    """The weights in all parts of a checkpoint together."""
    if missing := [part.name for part in parts if not part.is_file()]:
        raise _unreadable(
            path,
            name,
            f"of the {len(parts)} files of this checkpoint {len(missing)} are not in the folder, the first "
            f"{missing[0]}",
        )
    content: dict[Any, Any] = {}
    metadata: dict[str, str] = {}
    for part in parts:
        opened = _open_file(part, name)
        content.update(opened.content)
        metadata.update(opened.metadata)
    return Opened(content, metadata, flat=all(isinstance(value, torch.Tensor) for value in content.values()))


def _open_file(path: Path, name: str) -> Opened:
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise _unreadable(path, name, error.strerror or "it cannot be opened") from None
    if _is_safetensors(start, path):
        try:
            tensors, metadata = read_with_checksum(path)
        except UNREADABLE as error:
            raise _unreadable(path, name, f"damaged or no safetensors file: {error}") from None
        return Opened(tensors, metadata, flat=True)
    if other := _other_kind(start):
        raise _unreadable(path, name, other)
    content = _load(path, name, start)
    if not isinstance(content, dict):
        raise _unreadable(path, name, _not_a_mapping(content))
    return Opened(content)


def _load(path: Path, name: str, start: bytes) -> Any:
    """The object that torch reads from the file. Every class in it is replaced by a record or refused."""
    _check_sizes(path, name, start)
    allowed = list(RECORDS)
    for _ in range(_MOST_NAMES):
        try:
            with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns about the pickle's version; errors follow below
                return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
        except pickle.UnpicklingError as error:
            asked = re.search(r"GLOBAL (\S+)", str(error))
            if asked is None:
                raise _unreadable(path, name, _of_pickle(str(error))) from None
            known = asked[1]
            replacement = record_for(known)
            if replacement is None:
                advice = _WHOLE_MODEL if _MODEL.match(known) else _UNKNOWN_CLASS
                raise _unreadable(path, name, advice.format(known)) from None
            allowed.append(replacement)
        except MemoryError:
            raise _unreadable(path, name, "its tensors do not fit into this machine's memory") from None
        except Exception as error:  # torch raises many kinds of errors for damaged files
            raise _unreadable(path, name, _of_torch(error)) from None
    raise _unreadable(path, name, f"it asks for more than {_MOST_NAMES} classes")


def _check_sizes(path: Path, name: str, start: bytes) -> None:
    """Refuse an archive that unpacks to far more than its size, or to more than the free memory."""
    if not start.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            held = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # torch reports the problem
    names = {one.filename.rpartition("/")[2] for one in held}
    if "constants.pkl" in names:
        raise _unreadable(path, name, _SCRIPT)
    if "data.pkl" not in names:
        listed = ", ".join(sorted(one.filename for one in held)[:3]) or "nothing"
        raise _unreadable(path, name, f"damaged, or no checkpoint: an archive that holds {listed}")
    size, unpacked = path.stat().st_size, sum(one.file_size for one in held)
    free = int(memory_left())
    if unpacked > max(_SMALL, _INFLATION * size):
        reason = f"its {_bytes(size)} unpack to {_bytes(unpacked)}, which no weights do"
    elif unpacked > free:
        reason = f"it unpacks to {_bytes(unpacked)}, and {_bytes(free)} of memory are free"
    else:
        return
    raise _unreadable(path, name, f"{reason}; save the weights alone: {_SAVE}")


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _no_file(path: Path, name: str) -> UserError:
    if not path.is_dir():
        problem = "no such file"
    elif any(path.glob("*.distcp")):
        problem = (
            "is a folder of torch's distributed checkpoints; make it one file: `python -m "
            "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE`"
        )
    else:
        problem = "is a folder"
    return UserError(name, problem, value=str(path), expected="a checkpoint's path")


def _is_safetensors(start: bytes, path: Path) -> bool:
    """Whether the file begins with the length of its table and the table, or has safetensors' ending.

    The ending matters for a file that was cut off.
    """
    if path.suffix == ".safetensors" and not start.startswith(b"PK"):
        return True
    if len(start) < 9 or start[8:9] != b"{":
        return False
    (length,) = struct.unpack("<Q", start[:8])
    return bool(length < path.stat().st_size)


# (pattern of a file's first bytes, what it is)
_OTHERS = (
    (rb"version https://git-lfs", "a pointer of Git LFS, and not the file; get it by `git lfs pull`"),
    (rb"\x89HDF", "an HDF5 file (Keras)"),
    (rb"\x1f\x8b", "compressed by gzip; unpack it first"),
    (rb"BZh", "compressed by bzip2; unpack it first"),
    (rb"\xfd7zXZ", "compressed by xz; unpack it first"),
    (rb"\x28\xb5\x2f\xfd", "compressed by Zstandard; unpack it first"),
    (rb"\x93NUMPY", "an array of numpy"),
    (rb"\x89PNG", "a picture"),
    (rb"\s*(?i:<!doctype html|<html|<\?xml)", "a web page, as a download that failed leaves it"),
    (rb"\Z", "empty"),
    (rb"(?s:.{257})ustar", "a tar archive; unpack it first"),
)


def _other_kind(start: bytes) -> str | None:
    """The kind of a file that is not torch's checkpoint, by its first bytes; None if they are unknown."""
    for pattern, kind in _OTHERS:
        if re.match(pattern, start):
            return f"damaged, or no checkpoint: it is {kind}"
    if start.lstrip().startswith(b"{") and b"weight_map" in start:
        return "it is the index of a checkpoint in several files; its name must end in .index.json"
    return None


def _of_pickle(text: str) -> str:
    """The problem of a pickle, from torch's error text, which names no class."""
    if "Unsupported operand" in text:
        return (
            "damaged, or no checkpoint of torch's: it is pickled in a way that cannot be read without "
            f"running its code; save it again where it was made: {_SAVE}"
        )
    if "DTensor" in text or "distributed" in text:
        return (
            f"its tensors are spread over several processes; gather them and save the weights alone: {_SAVE}"
        )
    return "damaged, or no checkpoint"


def _of_torch(error: Exception) -> str:
    """The problem of a file, from torch's error, without torch's advice."""
    text = (str(error).strip().splitlines() or ["nothing said"])[0].split(". ")[0][:200]
    if "TorchScript" in text:
        return _SCRIPT
    if ".tar" in text:
        return f"it is in the format of torch before 0.4; save it again where it was made: {_SAVE}"
    if "weights_only" in str(error) or "pickle_module" in text or isinstance(error, KeyError | IndexError):
        return f"damaged, or no checkpoint ({type(error).__name__})"
    return f"damaged, or no checkpoint ({type(error).__name__}: {text})"


def _not_a_mapping(content: object) -> str:
    kind = type(content).__name__
    if (
        isinstance(content, list | tuple)
        and content
        and all(isinstance(one, torch.Tensor) for one in content)
    ):
        kind += f" of {len(content)} tensors without names"
    return f"holds a {kind}, not a state dict"


def _unreadable(path: Path, name: str, reason: str) -> UserError:
    return UserError(name, f"cannot be read: {reason}", value=str(path))


_SAVE = "`torch.save(model.state_dict(), 'weights.pth')`"
_SCRIPT = (
    "it is a TorchScript program, and no file's code is run; save the weights alone where it is trusted: "
    "`torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')`"
)
_UNKNOWN_CLASS = (
    "it asks to run {}, and no file's code is run. If it is a record of settings (a class of the "
    "training script), load the file where its code is at home and trusted, and save the weights alone: "
    "`torch.save({{'state_dict': content['state_dict']}}, 'weights.pth')`; of a whole model of your own, "
    + _SAVE
)
_MODEL = re.compile(r"(timm\.(models|layers)|torchvision\.models|torch\.nn\.modules|transformers\.models)\.")
_WHOLE_MODEL = (
    "it is a whole model, pickled with its classes ({}), and no file's code is run. Load the file where it "
    "was made, and save the weights alone: " + _SAVE
)
