"""Words of other tools lead to fields that there are."""

from __future__ import annotations

import pytest

from raykd.spec.axis_parse import KINDS
from raykd.spec.schedulers import SCHEDULERS
from raykd.spec.search import SearchSpec
from raykd.spec.sections import WorkersSpec
from trainables.core.errors import nearest
from trainables.core.other_words import OTHER_WORDS, field_for
from trainables.training.resolve import SECTIONS


def test_each_leads_to_a_field() -> None:
    asha = SCHEDULERS["asha"].model_fields
    models = {name: model.model_fields for name, model in SECTIONS.items()}
    fields = {**models, "workers": WorkersSpec.model_fields, "scheduler": asha, "axes": KINDS}
    for word, path in OTHER_WORDS.items():
        section, _, field = path.rpartition(".")
        assert field in (fields[section] if section else SearchSpec.model_fields), f"{word}: {path}"
        assert word == word.lower(), "they are looked up in small letters"


@pytest.mark.parametrize(
    ("word", "choices", "found"),
    [
        ("loguniform", KINDS, "log"),
        ("Log-Uniform", KINDS, "log"),
        ("unifrm", KINDS, "uniform"),
        ("n_trials", ["seeds", "samples"], "samples"),
        ("n_trials", ["seeds"], None),
        ("learning_rate", ["lr", "decay_rate"], "lr"),
    ],
)
def test_a_known_word_comes_before_similar_spelling(word: str, choices: list[str], found: str) -> None:
    assert nearest(word, choices) == found


def test_other_words_are_not_guessed() -> None:
    assert field_for("gamma") is None
