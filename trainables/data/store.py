"""A store: prepared images in memory-mapped Arrow files, made once and shared by every process of a node.

A store is a folder:

    train.arrow, test.arrow   Arrow IPC files: `image`; `label` int64; `crc` uint32, the CRC-32 of the image;
                              of whole pictures `aspect` float32, width / height
    store.json                sizes, fingerprints, which pictures could not be decoded, and its own checksum

`image` is either fixed_size_binary(3*S*S), uint8 CHW (`data.keep: raw`), or binary, a JPEG of a whole picture
(`data.keep: jpeg`). One store of JPEGs serves all image sizes.

A file of at most `CHECKED_BYTES` is compared with its fingerprint when it is first opened. Of a larger file
each image is compared with its CRC when a process first reads it: training takes far longer than that, and
nothing has to be read in advance. `store_images.py` reads pixels and `jpeg_images.py` JPEGs; `make_store.py`,
`store_writer.py` and `store_kinds.py` write.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainables.core.files import is_own_file, read_bytes
from trainables.data.jpeg_images import JpegImages
from trainables.data.store_images import ABOUT, Images
from trainables.data.store_kinds import Squares
from trainables.data.store_writer import Undecodable

FORMAT = 2
CHECKED_BYTES = 256 << 20  # files up to this size are checked as a whole when first opened
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """A store that is open: the prepared images of a data set."""

    train: Images
    test: Images | None
    classes: int
    undecodable: Undecodable

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprints of both parts."""
        both = self.train.fingerprint + (self.test.fingerprint if self.test is not None else "")
        return hashlib.sha256(both.encode()).hexdigest()


def load_store(folder: Path, shape: Squares | None = None, gpu: bool = False) -> Store | None:
    """The store in `folder`; None if there is none, or if it is damaged.

    `shape` says which squares of pixels a store of JPEGs gives; left out, whole pictures at their side. With
    `gpu` the GPU decodes them.
    """
    try:
        if (facts := _facts(folder)) is None:
            return None
        parts = {name: _load_part(folder, name, facts, shape, gpu) for name in facts["parts"]}
        return Store(parts["train"], parts.get("test"), facts["classes"], Undecodable(**facts["undecodable"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        _log.warning("the prepared images in %s are damaged and will be made anew: %s", folder, error)
        return None


def is_store(folder: Path) -> bool:
    """Whether there is a store in `folder` that is not known to be damaged."""
    return load_store(folder) is not None


def undecodable_in(folder: Path) -> Undecodable | None:
    """The pictures that the store in `folder` lacks; None if there is no store, or if it is damaged."""
    try:
        facts = _facts(folder)
        return Undecodable(**facts["undecodable"]) if facts is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _facts(folder: Path) -> dict[str, Any] | None:
    """What `store.json` says; None if it has another format. Raises what reading it raises."""
    facts: dict[str, Any] = json.loads(read_bytes(folder / ABOUT))
    if facts["format"] != FORMAT:
        return None
    if facts.pop("checksum") != checksum(facts):
        raise ValueError(f"{ABOUT} is not what was written")
    return facts


def _load_part(folder: Path, name: str, facts: dict[str, Any], shape: Squares | None, gpu: bool) -> Images:
    """The part `train` or `test`; raises `ValueError` if it is not what `facts` says."""
    path, part = folder / f"{name}.arrow", facts["parts"][name]
    if not is_own_file(path):  # `UserError` for a link
        raise FileNotFoundError(path)
    status = path.stat()
    if status.st_size != part["bytes"]:
        raise ValueError(f"{path.name} has {status.st_size} bytes of {part['bytes']}")
    images: Images
    if facts.get("keep") == "jpeg":
        shape = shape or Squares(facts["short_side"], whole=True)
        images = JpegImages(path, facts["classes"], part["sha256"], shape.side, shape.whole, gpu)
    else:
        images = Images(path, facts["side"], facts["classes"], part["sha256"])
    if len(images) != part["images"]:
        raise ValueError(f"{path.name} has {len(images)} images of {part['images']}")
    if zlib.crc32(images.beside()) != part["labels"]:
        raise ValueError(f"the labels in {path.name} are not what was written")
    if status.st_size <= CHECKED_BYTES and not images.known_whole:
        if images.content() != part["sha256"]:
            raise ValueError(f"the content of {path.name} is not what was written")
        images.found_whole()
    return images


def checksum(facts: dict[str, Any]) -> str:
    """The SHA-256 of what `store.json` says, without this line."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
