"""Names of splits: the hub's words, where the hub finds them, and names that only look like them."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.sources.parts.split_words import look_alikes, remainder, splits_of

# "File names and splits" of the Hugging Face hub, as its `datasets` writes them out: the words, the
# characters beside them, and the four places of a word in a folder's name.
HUB = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
BESIDE = "-._ 0-9"
PLACES = ("{0}", "{0}[{1}]*", "*[{1}]{0}", "*[{1}]{0}[{1}]*")
PIECES = [*(word for words in HUB.values() for word in words), *"-._ 07", "my", "set", "a", "la", "Test"]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join))
def test_a_name_speaks_of_what_the_hub_reads_from_it(name: str) -> None:
    hub = {
        split
        for split, words in HUB.items()
        if any(fnmatchcase(name.lower(), place.format(word, BESIDE)) for word in words for place in PLACES)
    }
    assert set(splits_of(name)) == hub


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("trn", ("train",)),
        ("tst_2", ("test",)),
        ("unlabeled", ("unlabelled",)),
        ("TRAIN", ("train",)),
        ("Test (1)", ("test",)),
        ("train_val2019", ("train", "validation")),
        ("détest", ()),
        ("trainval", ()),
    ],
)
def test_words(name: str, splits: tuple[str, ...]) -> None:
    assert splits_of(name) == splits


def test_what_is_left_of_a_name() -> None:
    assert remainder("train_images2017") == ("images",) == remainder("images-test")
    assert remainder("val2014") == ()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["trainset", "testset"], ("trainset", "testset")),
        (["trainingSet", "testSet", "other"], ("trainingSet", "testSet")),
        (["mytrain1", "mydev2"], ("mytrain1", "mydev2")),
        (["trainA", "testB"], None),
        (["strain", "contest"], None),
        (["trainset", "test_set"], None),  # the second is a split word by the hub's rule
        (["valley", "devil", "cat"], None),
    ],
)
def test_look_alikes(names: list[str], found: tuple[str, str] | None) -> None:
    assert look_alikes(names) == found
