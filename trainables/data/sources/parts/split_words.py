"""Split words in names of files and folders, by the Hugging Face hub's "File names and splits".

https://huggingface.co/docs/hub/datasets-file-names-and-splits: a split word may stand anywhere in the name of
a folder or file if no letter is beside it (`my_test_file`, `test1`, `partial-train`, `train 2`). This project
adds `trn`, `tst` and the words for `unlabelled` to the hub's words. Case is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

WORDS = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "eval", "evaluation", "tst"),
    "validation": ("validation", "valid", "val", "dev"),
    "unlabelled": ("unlabelled", "unlabeled"),
}
HELD_OUT = ("test", "validation")  # splits that may be the test part, in the order of preference
_SPLIT = {word: split for split, words in WORDS.items() for word in words}
_LETTER = r"[^\W\d_]"
_WORD = re.compile(rf"(?<!{_LETTER})({'|'.join(_SPLIT)})(?!{_LETTER})")


def splits_of(name: str) -> tuple[str, ...]:
    """The distinct splits whose words are in the name of a folder or file; usually none or one."""
    return tuple(dict.fromkeys(_SPLIT[word] for word in _WORD.findall(name.lower())))


def remainder(name: str) -> tuple[str, ...]:
    """The other words of a name, without split words and numbers: `train_images2017` -> ("images",)."""
    return tuple(word for word in re.findall(rf"{_LETTER}+", name.lower()) if word not in _SPLIT)


def look_alikes(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that look like a training and a held-out part without a delimiter: `trainset`, `testset`.

    They differ only in numbers and in a split word at their beginning or end. None if there are none.
    """
    seen: dict[str, dict[str, str]] = {"train": {}, "held out": {}}
    for name in sorted(names):
        lower = re.sub(r"\d", "", name.lower())
        for word, split in _SPLIT.items():
            if split == "unlabelled" or splits_of(name):
                continue
            kind = seen["train" if split == "train" else "held out"]
            if lower.startswith(word):
                kind.setdefault(f"…{lower[len(word) :]}", name)
            if lower.endswith(word):
                kind.setdefault(f"{lower[: -len(word)]}…", name)
    both = seen["train"].keys() & seen["held out"].keys()
    return (seen["train"][min(both)], seen["held out"][min(both)]) if both else None
