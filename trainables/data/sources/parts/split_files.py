"""Sorting the files of a data set into training, held-out, unlabelled and unused files.

    sort_files(Path("/data"), ["train/a/1.png", "test/a/2.png"], None, by_file=False)

The names of a file's folders determine its split; if they contain no split word, the file's own name does.
For Parquet files both count at once. `split_words.py` has the words. Ambiguous names are refused: the error
describes both readings and the `data.splits` for each.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from trainables.core.errors import UserError
from trainables.data.sources.parts.split_parts import (
    SHOWN,
    Portion,
    Sorted,
    folders_of,
    listed,
    place_of,
    shared_folders,
    two_readings,
    typed,
)
from trainables.data.sources.parts.split_words import HELD_OUT, WORDS, look_alikes, remainder, splits_of

Patterns = Mapping[str, Sequence[str]]  # split -> patterns of `data.splits`
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\b")  # the hub's names for parts: `train-00000-of-00003.parquet`


def sort_files(folder: Path, paths: list[str], splits: Patterns | None, *, by_file: bool) -> Sorted:
    """Sort `paths`, relative to `folder` and joined by "/". `UserError` if they can be read in two ways.

    With `by_file` a file's own name counts like the names of its folders, and folders are not classes.
    """
    if splits is not None:
        return _by_patterns(folder, paths, splits)
    root = shared_folders(paths)
    found = _Found(folder, paths, len(root), by_file)
    worded = [at for at, name in enumerate(root) if splits_of(name)]
    if not found.groups and worded:  # only `test/`: a folder above all files may name their split
        found = _Found(folder, paths, worded[-1], by_file)
    if not found.groups:
        _refuse_look_alikes(folder, paths, by_file)
        named = None if by_file else _by_picture_name(folder, paths, len(root))
        return named or Sorted({"train": _all(paths, 0, by_file)}, [])
    return found.settled(len(root))


class _Found:
    """The files with a split word in their path, grouped by the folder above the word, and the others."""

    def __init__(self, folder: Path, paths: list[str], start: int, by_file: bool) -> None:
        self.folder, self.by_file = folder, by_file
        self.groups: dict[tuple[str, ...], dict[str, Portion]] = {}
        self.bare: list[str] = []
        self.clashes: list[tuple[str, str, str]] = []  # path, its split, a later part that names another
        known: dict[str, tuple[int, tuple[str, ...]] | None] = {}
        for path in paths:
            names = path.split("/")
            before = path[: len(path) - len(names[-1])]
            if before not in known:
                known[before] = _first_word(names[:-1], start)
            found = known[before] or (_first_word(names, len(names) - 1) if by_file else None)
            if found is None:
                self.bare.append(path)
                continue
            at, words = found
            if len(words) > 1:
                raise self._two_words(path, names[at], words)
            self.groups.setdefault(tuple(names[:at]), {}).setdefault(words[0], Portion()).add(path, at + 1)
            later = names[at + 1 :] if by_file else names[at + 1 : -1]
            other = next((n for n in later if set(splits_of(n)) - {words[0], "unlabelled"}), None)
            if other is not None:
                self.clashes.append((path, words[0], other))

    def settled(self, root: int) -> Sorted:
        """The files by split. `UserError` if the split is not certain."""
        if len(self.groups) > 1:
            raise self._several()
        parts = next(iter(self.groups.values()))
        self._refuse_clashes(parts)
        held = [split for split in HELD_OUT if split in parts]
        bare, left = self.bare, list[str]()
        above = [words for name in bare[0].split("/")[:root] if (words := splits_of(name))] if bare else []
        trains = not above or above[-1] == ("train",)  # no folder above all files names another split
        if (
            bare
            and trains
            and (set(parts) == {"unlabelled"} or (self.by_file and held and "train" not in parts))
        ):
            parts["train"], bare = _all(bare, root, self.by_file), []
        elif bare and not self.by_file and "train" in parts and (held or not _in_folders(bare, self.groups)):
            left, bare = bare, []
        if bare:
            raise self._mixed(parts, root)
        if "train" not in parts and held:
            raise self._no_train(parts)
        if not self.by_file:
            self._refuse_unlike(parts)
        return Sorted(parts, left)

    def _two_words(self, path: str, name: str, words: tuple[str, ...]) -> UserError:
        place = place_of(path, path.split("/").index(name) + 1).rstrip("/")
        return UserError(
            "data.path",
            f"the name {name} (in {self.folder / path}) says {' and '.join(words)} at once",
            expected=f"another name, or {typed(train=[place])} (or test, besides the other parts)",
        )

    def _several(self) -> UserError:
        places = ["/".join(key) for key in sorted(self.groups)]
        inside = sorted({split for parts in self.groups.values() for split in parts}, key=list(WORDS).index)
        one = shlex.quote(str(self.folder / places[-1]))
        return UserError(
            "data.path",
            f"{self.folder} holds {listed(f'{p}/' if p else 'files' for p in places)}, each with its own "
            f"{' and '.join(inside)}: several data sets, or one in several folders",
            expected=f"one of them: `--set data.path={one}`; or which files are for what, such as "
            + typed(**{_key(s): [f"*/{s}{'*' * self.by_file}"] for s in reversed(inside)}),
        )

    def _refuse_clashes(self, parts: Mapping[str, Portion]) -> None:
        """Refuse a second split word in a path, except in a class (`test_tube`) that two parts have."""
        homes: dict[str, set[str]] = {}
        if self.clashes and not self.by_file:
            for split, portion in parts.items():
                for name in set(portion.classes()):
                    homes.setdefault(name, set()).add(split)
        for path, split, other in self.clashes:
            names, at = path.split("/"), len(next(iter(self.groups))) + 1
            if not (names[at] == other and len(homes.get(other, ())) > 1):
                place = "/".join(names[: names.index(other, at) + 1])
                raise two_readings(
                    self.folder,
                    f"{place} belongs to the part {split}",
                    f"it is the part {splits_of(other)[0]}",
                    [
                        (typed(**_patterns(parts)), "for the first"),
                        (typed(**{**_patterns(parts), _key(splits_of(other)[0]): [place]}), "for the second"),
                    ],
                )

    def _mixed(self, parts: Mapping[str, Portion], root: int) -> UserError:
        """The error if only some of the files have a split word in their path."""
        key = next(iter(self.groups))
        below = all(path.split("/")[: len(key)] == list(key) for path in self.bare)
        base = "/".join(key if below else key[:root]) or "."
        at = len(base.split("/")) + 1 if base != "." else 1
        bare = Portion(self.bare, [min(at, path.count("/") + 1) for path in self.bare])
        others = listed(bare.places())
        worded = {split: listed(portion.places()) for split, portion in parts.items()}
        held_out = "are held out" if len(worded) > 1 else "is held out"
        are = "are" if len(bare.places()) > 1 else "is"
        patterns, some = _patterns(parts), "" if self.by_file else ", and its folders are classes"
        if "train" not in parts:
            return two_readings(
                self.folder,
                f"all of it is trained on{some}",
                f"{', '.join(worded.values())} {held_out}, and {others} {are} trained on",
                [
                    (typed(train=[base]), "for the first"),
                    (typed(**{**patterns, "train": [base]}), "for the second"),
                ],
            )
        ways = [
            (typed(**{**patterns, "train": [base]}), "for the first"),
            (typed(**patterns), "for the second"),
        ]
        if len(held := bare.patterns()) <= SHOWN:
            ways.append(
                (
                    typed(**{**patterns, "test": [*patterns.get("test", []), *held]}),
                    f"if {others} {are} held out",
                )
            )
        return two_readings(
            self.folder,
            f"all of it is trained on{some}"
            if set(parts) == {"train"}
            else f"{others} {are} trained on, too",
            f"{worded['train']} is the training part, and {others} {are} not",
            ways,
        )

    def _no_train(self, parts: Mapping[str, Portion]) -> UserError:
        seen = listed(place for portion in parts.values() for place in portion.places())
        every = [pattern for portion in parts.values() for pattern in portion.patterns()]
        train = "train-*.parquet" if self.by_file else "train/"
        return UserError(
            "data.path",
            f"{self.folder} has {seen} and no {train}: there is nothing to train on",
            expected=f"{train} beside it, or {typed(train=every[:SHOWN])} if it is to be trained on",
        )

    def _refuse_unlike(self, parts: Mapping[str, Portion]) -> None:
        """Refuse flat folders that may be classes, such as `bullet_train` and `test_tube`."""
        if any(any(portion.classes()) for portion in parts.values()):
            return
        places = [place for portion in parts.values() for place in portion.places()]
        rests = {rest for place in places if (rest := remainder(Path(place).name))}
        if len(rests) > 1:
            base = "/".join(next(iter(self.groups))) or "."
            raise two_readings(
                self.folder,
                f"{listed(places)} are classes",
                "they are the parts of a data set",
                [
                    (typed(train=[base]), "for the first"),
                    (typed(**_patterns(parts)), "for the second"),
                ],
            )


def _all(paths: list[str], depth: int, by_file: bool) -> Portion:
    """All files as one portion: with `by_file` each file is a place, else the folders below are classes."""
    return Portion(paths, [path.count("/") + 1 if by_file else depth for path in paths])


def _by_patterns(folder: Path, paths: list[str], splits: Patterns) -> Sorted:
    """Sort by `data.splits`. A pattern takes all files below it; the longer of two patterns wins.

    `UserError` for patterns outside `folder`, without a file, or with equal claim to a file.
    """
    if not {"train", "unlabelled"} & splits.keys():
        raise UserError(
            "data.splits", "says of no file that it is trained on", expected="`train: FOLDER`, too"
        )
    wanted = []
    for split, patterns in splits.items():
        for pattern in patterns:
            names = tuple(name for name in pattern.split("/") if name not in ("", "."))
            if pattern.startswith("/") or ".." in names:
                raise UserError(
                    f"data.splits.{split}", "leaves data.path", value=pattern, expected="a path below it"
                )
            wanted.append((split, pattern, names))
    wanted.sort(key=lambda want: -len(want[2]))
    sorted_, used, known = Sorted({}, []), set[str](), dict[str, list[tuple[str, str, tuple[str, ...]]]]()
    deepest = max((len(names) for _, _, names in wanted), default=0)
    for path in paths:
        parts = path.split("/")
        head = "/".join(parts[:deepest])
        if head not in known:
            fits = [want for want in wanted if _matches(parts, want[2])]
            known[head] = [want for want in fits if len(want[2]) == len(fits[0][2])]
        takers = known[head]
        if len({split for split, *_ in takers}) > 1:
            both = " and ".join(f"{split}: {pattern}" for split, pattern, _ in takers)
            raise UserError("data.splits", f"{path} is taken by {both}", expected="one split a file")
        if not takers:
            sorted_.left.append(path)
            continue
        split, pattern, place = takers[0]
        used.update(f"{split} {pattern}" for split, pattern, _ in takers)
        sorted_.portions.setdefault(split, Portion()).add(path, len(place))
    for split, pattern, _ in wanted:
        if f"{split} {pattern}" not in used:
            there = {path.split("/")[0] for path in paths}
            problem = f"takes no file of {folder}"
            raise UserError(f"data.splits.{split}", problem, value=pattern, choices=sorted(there)[:20])
    return sorted_


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(pattern) <= len(names) and all(map(fnmatchcase, names, pattern))


def _by_picture_name(folder: Path, paths: list[str], root: int) -> Sorted | None:
    """Sort pictures by their own names (`train_1.png`, `test_1.png`); None if no name is a held-out one."""
    parts: dict[str, Portion] = {}
    bare: list[str] = []
    for path in paths:
        words = splits_of(path.rpartition("/")[2])
        if len(words) == 1:
            parts.setdefault(words[0], Portion()).add(path, root)
        else:
            bare.append(path)
    held = [split for split in HELD_OUT if split in parts]
    for split, portion in parts.items():
        portion.description = f"files named {split}"
    if not held:
        return None
    if len(parts) == 1 and not bare:  # all names have the same word, so it separates nothing
        return Sorted({"train": Portion(paths, [0] * len(paths), parts[held[0]].description)}, [])
    if "train" in parts and not bare:
        return Sorted(parts, [])
    some = listed(path for split in held for path in parts[split].paths)
    count = sum(len(parts[split].paths) for split in held)
    first, second = f"all {len(paths)} pictures are trained on", f"{count} of them are held out ({some})"
    moved = ("folders train/ and test/, or such words in every name,", "for the second")
    raise two_readings(folder, first, second, [(typed(train=["."]), "for the first"), moved])


def _refuse_look_alikes(folder: Path, paths: list[str], by_file: bool) -> None:
    """Refuse names without a split word that differ like splits: `trainset/`, `testset/`."""
    siblings: dict[str, dict[str, None]] = {}
    for path in paths if by_file else {path.rpartition("/")[0] + "/" for path in paths}:
        names = path.split("/")
        for at in range(len(names) if by_file else len(names) - 1):
            siblings.setdefault("/".join(names[:at]), {})[names[at]] = None
    for above, names_there in siblings.items():
        alike = look_alikes(names_there)
        shards = dict.fromkeys(m[1] for n in names_there if (m := _SHARD.match(n))) if by_file else {}
        if alike is None and len(shards) < 2:
            continue
        first, second = alike or list(shards)[:2]
        inside = f"{above}/" if above else ""
        star = "" if alike else "-*"
        kinds = "two splits" if by_file else "a training and a test part"
        raise two_readings(
            folder,
            f"{inside}{first} and {inside}{second} are {kinds}",
            f"both are trained on{'' if by_file else ' as classes'}",
            [
                (typed(train=[f"{inside}{first}{star}"], test=[f"{inside}{second}{star}"]), "for the first"),
                (typed(train=["."]), "for the second"),
            ],
        )


def _first_word(names: Sequence[str], start: int) -> tuple[int, tuple[str, ...]] | None:
    """(index, splits) of the first name from `start` on that has a split word; None if none has."""
    for at in range(start, len(names)):
        if words := splits_of(names[at]):
            return at, words
    return None


def _in_folders(paths: Iterable[str], groups: Iterable[tuple[str, ...]]) -> bool:
    """Whether any path lies in a folder of its own, not directly beside the splits' folders."""
    key = next(iter(groups))
    return any(tuple(folders_of(path)) != key[: path.count("/")] for path in paths)


def _key(split: str) -> str:
    """The name of a split in `data.splits`."""
    return "test" if split == "validation" else split


def _patterns(parts: Mapping[str, Portion]) -> dict[str, list[str]]:
    """`data.splits` for these parts. Of two held-out parts only the preferred one is in it."""
    held = next((split for split in HELD_OUT if split in parts), "")
    return {_key(split): parts[split].patterns() for split in ("train", held, "unlabelled") if split in parts}
