"""Which files are for what: one sensible reading is taken, two are refused with what to type for each."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.core.errors import UserError
from trainables.data.sources.folder import layout
from trainables.data.sources.parts.files import Files
from trainables.data.sources.parts.split_files import sort_files
from trainables.data.sources.parts.split_words import splits_of
from trainables.spec.trial import DataSpec, TrialSpec

ROOT = Path("/data")


def tree(*tops: str) -> list[str]:
    """Two classes of two images below each."""
    return [f"{top}/{label}/{i}.png".lstrip("/") for top in tops for label in "ab" for i in (1, 2)]


def flat(*tops: str) -> list[str]:
    return [f"{top}/{i}.png" for top in tops for i in (1, 2)]


def read(paths: list[str], splits: dict[str, object] | None = None) -> tuple[int, int, int, list[str], int]:
    """Images trained on with a label, those without, those of the test part, classes, images left out."""
    given = DataSpec.model_validate({"splits": splits}).splits
    found = layout(ROOT, Files(sorted(paths)), given)
    free = int((found.train.labels < 0).sum())
    left = sum(part.images for part in found.taken if not part.split)
    return len(found.train.labels) - free, free, len(found.test.labels), found.classes, left


AB = ["a", "b"]
READ = {
    "training, testing": (tree("training", "testing"), (4, 0, 4, AB, 0)),
    "capitals": (tree("TRAINING", "Testing"), (4, 0, 4, AB, 0)),
    "trn, tst": (tree("trn", "tst"), (4, 0, 4, AB, 0)),
    "train, dev": (tree("train", "dev"), (4, 0, 4, AB, 0)),
    "train, eval": (tree("train", "eval"), (4, 0, 4, AB, 0)),
    "train, evaluation": (tree("train", "evaluation"), (4, 0, 4, AB, 0)),
    "words within names": (tree("my_train-2", "my.test.part"), (4, 0, 4, AB, 0)),
    "parts": (tree("train_1", "train_2", "test"), (8, 0, 4, AB, 0)),
    "two words of one split": (tree("train", "test", "testing"), (4, 0, 8, AB, 0)),
    "validation beside test": (tree("train", "valid", "test"), (4, 0, 4, AB, 4)),
    "validation beside a flat test": (tree("train", "val") + flat("test"), (4, 0, 4, AB, 2)),
    "deeper": (tree("unzipped/digits/train", "unzipped/digits/test"), (4, 0, 4, AB, 0)),
    "deeper, a picture beside": ([*tree("digits/train", "digits/test"), "about.png"], (4, 0, 4, AB, 1)),
    "deeper, below a split word": (tree("test_of_mine/train", "test_of_mine/test"), (4, 0, 4, AB, 0)),
    "something beside": (tree("train", "test", "docs"), (4, 0, 4, AB, 4)),
    "a picture beside": ([*tree("train"), "sample.png"], (4, 0, 0, AB, 1)),
    "COCO": (flat("train2017", "val2017", "test2017"), (0, 2, 0, [], 4)),
    "flat with a common word": (flat("train_images", "test_images"), (0, 2, 0, [], 2)),
    "a class called train in both": (
        [f"{part}/{name}/1.png" for part in ("train", "test") for name in ("bus", "train", "test_tube")],
        (3, 0, 3, ["bus", "test_tube", "train"], 0),
    ),
    "by file names": (
        [f"{c}/{s}_{i}.png" for c in "ab" for s in ("train", "test") for i in "12"], (4, 0, 4, AB, 0)
    ),
    "file names of one split": ([f"{c}/val_{i}.png" for c in "ab" for i in "12"], (4, 0, 0, AB, 0)),
    "a photo of a train": (["1.png", "2.png", "train 3.png"], (0, 3, 0, [], 0)),
    "classes and unlabelled": (tree("") + flat("unlabelled"), (4, 2, 0, AB, 0)),
    "train and unlabelled": (tree("train") + flat("unlabeled_more"), (4, 2, 0, AB, 0)),
    "one class deeper": (["photos/1.png", "photos/2019/1.png", "photos/2020/1.png"], (0, 3, 0, [], 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_one_reading_is_taken(name: str) -> None:
    paths, want = READ[name]
    assert read(paths) == want


TWO_WAYS = {
    "a class called train": (
        flat("bus", "car", "train"),
        "train/ is the training part, and bus/, car/ are not",
    ),
    "classes beside train": (tree("train", "holdout"), "holdout/ is not"),
    "a held-out part beside classes": (flat("cat", "dog", "test"), "test/ is held out"),
    "trainval": (tree("trainval", "test"), "trainval/ is trained on"),
    "no delimiter": (tree("trainset", "testset"), "trainset and testset are a training and a test part"),
    "camels": (flat("trainingSet", "testSet"), "trainingSet and testSet"),
    "CycleGAN": (flat("trainA", "trainB", "testA", "testB"), "trainA and testA"),
    "classes with split words": (flat("bullet_train", "test_tube"), "bullet_train/, test_tube/ are classes"),
    "classes with one split word": (flat("bullet_train", "steam_train"), "are classes"),
    "below a class": (flat("cat", "dog/shoot/test"), "dog/shoot/test/ is held out"),
    "held out within train": (tree("train") + flat("train/test"), "train/test/ is held out"),
    "deep within train": (tree("train", "test") + flat("train/a/test"), "train/a/test"),
    "classes one folder deeper": (tree("digits"), "a/, b/ in digits/ are classes"),
    "classes deeper in each part": (
        tree("train/images", "test/images"),
        "a/, b/ in train/images/ are classes",
    ),
    "some file names": ([*tree(""), "a/test_9.png"], "1 of them are held out (a/test_9.png)"),
}


@pytest.mark.parametrize("name", TWO_WAYS)
def test_two_readings_are_refused_and_what_is_said_to_be_typed_works(name: str) -> None:
    paths, said = TWO_WAYS[name]
    with pytest.raises(UserError) as refused:
        read(paths)
    message = str(refused.value)
    assert refused.value.field == "data.path" and "can be read in two ways" in message and said in message
    options = typed_in(message)
    assert options
    for splits in options:
        sort_files(ROOT, sorted(paths), DataSpec.model_validate({"splits": splits}).splits, by_file=False)


def typed_in(message: str) -> list[dict[str, object]]:
    """The values of `data.splits` that a message says to type, read as the command line reads them."""
    words = [shlex.split(option) for option in re.findall(r"`(--set [^`]*data\.splits[^`]*)`", message)]
    return [yaml.safe_load(value.removeprefix("data.splits=")) for _, value in words]


def test_several_data_sets_are_named() -> None:
    paths = tree("bottle/train", "bottle/test", "cable/train", "cable/test")
    with pytest.raises(
        UserError, match=r"holds bottle/, cable/, each with its own train and test"
    ) as refused:
        read(paths)
    assert "`--set data.path=/data/cable`" in str(refused.value)
    (splits,) = typed_in(str(refused.value))
    assert read(paths, splits) == (8, 0, 8, AB, 0)


@pytest.mark.parametrize("name", ["train_test", "train_val2019", "dev-test"])
def test_two_split_words_in_one_name(name: str) -> None:
    with pytest.raises(UserError, match=f"the name {name} .* at once"):
        read(tree(name, "other"))


def test_nothing_to_train_on() -> None:
    for top in ("test", "x/val", "eval_2"):
        with pytest.raises(UserError, match=r"has .*and no train/"):
            read(tree(top))


@pytest.mark.parametrize(
    ("paths", "splits", "want"),
    [
        (flat("bus", "car", "train"), {"train": "."}, (6, 0, 0, ["bus", "car", "train"], 0)),
        (tree("", "test"), {"train": ".", "test": "test"}, (4, 0, 4, AB, 0)),
        (tree("p1", "p2", "q"), {"train": "p*", "test": ["q"]}, (8, 0, 4, AB, 0)),
        (tree("x/one", "y/one", "x/two"), {"train": "*/one"}, (8, 0, 0, AB, 4)),
        (tree("good") + flat("more"), {"train": "good", "unlabelled": "more"}, (4, 2, 0, AB, 0)),
        (tree("a[1]", "a1"), {"train": "a[[]1]"}, (4, 0, 0, AB, 4)),
    ],
)
def test_splits_as_told(paths: list[str], splits: dict[str, object], want: object) -> None:
    assert read(paths, splits) == want


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"train": "trian"}, r"data.splits.train: takes no file .*Did you mean 'train'"),
        ({"test": "train"}, "says of no file that it is trained on"),
        ({"train": "../x"}, "leaves data.path"),
        ({"train": "/data/train"}, "leaves data.path"),
        ({"train": "tr*", "test": "*in"}, "is taken by train: tr.* and test: .*in"),
    ],
)
def test_bad_splits(splits: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(tree("train"), splits)


def test_splits_are_part_of_a_trial_s_name_where_they_are_given() -> None:
    trials = [
        TrialSpec.model_validate(
            {"method": "m", "config": {}, "student": {"arch": "s"}, "epochs": 1, "data": {"splits": splits}}
        )
        for splits in (None, {"train": "."}, {"train": ["."]}, {"train": "x"})
    ]
    assert len({trial.signature() for trial in trials}) == 3
    assert trials[1].signature() == trials[2].signature()
    assert trials[0].signature() == "45c1900c"  # as it was before there were any


@pytest.mark.parametrize("bad", [{}, {"train": []}, {"train": ""}, {"val": "x"}])
def test_splits_that_say_nothing(bad: object) -> None:
    with pytest.raises(ValueError, match="splits"):
        DataSpec.model_validate({"splits": bad})


NAMES = ["train", "test", "val", "my_test_2", "cat", "dog", "x", "training", "unlabelled", "eval"]


@settings(max_examples=300, deadline=None)
@given(st.sets(st.lists(st.sampled_from(NAMES), min_size=0, max_size=3).map(tuple), min_size=1, max_size=6))
def test_no_held_out_file_is_trained_on_and_every_file_is_accounted_for(
    folders: set[tuple[str, ...]],
) -> None:
    paths = sorted("/".join([*folder, f"{i}.png"]) for folder in folders for i in (1, 2))
    for by_file in (False, True):
        try:
            found = sort_files(ROOT, paths, None, by_file=by_file)
        except UserError as error:
            assert error.field == "data.path"
            continue
        placed = [path for portion in found.portions.values() for path in portion.paths] + found.left
        assert sorted(placed) == paths
        for path in found["train"].paths:
            words = {split for name in path.split("/")[:-1] for split in splits_of(name)}
            # Held-out words above an own `train` folder, or as a class of several parts, are all that may be.
            assert not words & {"test", "validation"} or "train" in words
