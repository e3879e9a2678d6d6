"""Raw mappings to complete trials: what fills what, what is refused with which words, and the flat names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

import trainables.methods.base
from tests.helpers.flat import unflatten
from trainables.core.errors import UserError
from trainables.methods import methods
from trainables.methods.base import Method, MethodConfig
from trainables.training.flat_names import find_field, flat_fields, flatten, put
from trainables.training.resolve import resolve


@pytest.fixture(autouse=True)
def two_methods(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A method with a teacher and one without, in a registry of this test's own."""
    monkeypatch.setattr(trainables.methods.base, "registry", dict(methods()))

    class Pupil(Method):
        name = "pupil"
        summary = "learns from a teacher"
        needs = frozenset({"teacher"})
        points = ("backbone", "adapter")
        presets: ClassVar = {
            "big": {"config": {"gamma": 0.5}, "optim": {"lr": 0.03, "schedule": "step"}, "epochs": 7},
            "flips": {"views": {"recipe": "light", "strength": 0.0}},
        }

        class Config(MethodConfig):
            gamma: Annotated[float, Field(ge=0)] = Field(0.1, description="weight of the second term")
            kind: Literal["linear", "mlp"] = "linear"
            hidden: Annotated[int, Field(gt=0)] | None = None
            deep: bool = False

            @model_validator(mode="after")
            def _together(self) -> Any:
                if self.hidden and self.kind == "linear":
                    raise ValueError("a linear map has no hidden layer")
                return self

    class Loner(Method):
        name = "loner"
        summary = "learns alone"

        class Config(MethodConfig):
            tau: Annotated[float, Field(gt=0)] = 0.2

    yield


TEACHER = {"arch": "t", "train": {"method": "loner", "epochs": 3}}
BASE: dict[str, Any] = {"method": "pupil", "student": {"arch": "s"}, "teacher": TEACHER, "epochs": 4}


def test_every_field_is_filled_in() -> None:
    trial = resolve(BASE)
    assert trial.config == {"gamma": 0.1, "kind": "linear", "hidden": None, "deep": False}
    assert trial.optim.lr == 2e-3 and trial.views.recipe == "digits" and trial.seed == 0


def test_defaults_then_preset_then_what_is_written() -> None:
    preset = resolve({"preset": "big", **{k: v for k, v in BASE.items() if k != "epochs"}})
    assert (preset.config["gamma"], preset.optim.lr, preset.epochs) == (0.5, 0.03, 7)
    assert preset.optim.batch_size == 128  # neither says
    written = resolve({**BASE, "preset": "big", "config": {"gamma": 2}, "optim": {"lr": 0.1}})
    assert (written.config["gamma"], written.optim.lr, written.epochs) == (2.0, 0.1, 4)
    assert written.optim.schedule == "step"  # field by field, not section by section


def test_empty_sections_say_nothing() -> None:
    assert resolve({**BASE, "optim": None, "data": {}, "config": None, "preset": None}) == resolve(BASE)
    preset = {**BASE, "preset": "big"}
    assert resolve({**preset, "optim": None, "config": None, "views": {}}) == resolve(preset)


def test_a_presets_strength_of_0_is_its_recipes() -> None:
    """It leaves flips alone; who writes another recipe does not mean to see plain images."""
    flips = resolve({**BASE, "preset": "flips"})
    assert (flips.views.recipe, flips.views.strength) == ("light", 0)
    assert resolve({**BASE, "preset": "flips", "views": {"recipe": "light"}}) == flips
    other = resolve({**BASE, "preset": "flips", "views": {"recipe": "moco_v2"}})
    assert (other.views.recipe, other.views.strength) == ("moco_v2", 1)
    said = resolve({**BASE, "preset": "flips", "views": {"recipe": "moco_v2", "strength": 0}})
    assert said.views.strength == 0
    assert resolve({**BASE, "preset": "flips", "views": {"strength": 0.5}}).views.recipe == "light"


def test_a_teacher_is_dropped_where_none_is_learned_from() -> None:
    with_teacher = resolve({**BASE, "method": "loner"})
    assert with_teacher.teacher is None
    alone = resolve({"method": "loner", "student": {"arch": "s"}, "epochs": 4})
    assert with_teacher.signature() == alone.signature()


def test_a_dropped_teacher_is_still_read() -> None:
    with pytest.raises(UserError, match=r"teacher\.arhc: no such field"):
        resolve({**BASE, "method": "loner", "teacher": {"arhc": "t"}})


def test_a_teachers_training_is_complete_and_its_own() -> None:
    trial = resolve({**BASE, "views": {"strength": 0.3}, "optim": {"lr": 1.0}})
    assert trial.teacher is not None and trial.teacher.train is not None
    train = trial.teacher.train
    assert train.config == {"tau": 0.2}
    assert train.optim["lr"] == 2e-3 and train.views["strength"] == 1.0  # not those of the trial
    spelled_out = {**TEACHER, "train": {**TEACHER["train"], "config": {"tau": 0.2}, "views": {"strength": 1}}}
    again = resolve({**BASE, "views": {"strength": 0.3}, "optim": {"lr": 1.0}, "teacher": spelled_out})
    assert again.signature() == trial.signature()


def test_numbers_may_be_text_and_mean_the_same() -> None:
    text = resolve({**BASE, "optim": {"lr": "1e-3"}, "config": {"gamma": "2"}})
    assert text.signature() == resolve({**BASE, "optim": {"lr": 1e-3}, "config": {"gamma": 2}}).signature()


def test_a_complete_trial_resolves_to_itself() -> None:
    trial = resolve({**BASE, "config": {"kind": "mlp", "hidden": 3}, "optim": {"decay_epochs": [1, 2]}})
    assert resolve(trial.model_dump()) == trial
    assert resolve(trial.model_dump(mode="json")) == trial


CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"config": {"gama": 1}}, "config.gama", "Did you mean 'gamma'?"),
    ({"config": {"gamma": -1}}, "config.gamma", "(got -1). Expected a number greater than or equal to 0"),
    ({"config": {"gamma": -1}}, "config.gamma", "weight of the second term"),
    ({"config": {"kind": "mpl"}}, "config.kind", "Did you mean 'mlp'?"),
    ({"config": {"hidden": "x"}}, "config.hidden", "(got 'x'). Expected a whole number"),
    ({"config": {"hidden": 3}}, "config", "a linear map has no hidden layer"),
    ({"config": {"hidden": True}}, "config.hidden", "a number, not yes or no"),
    ({"config": {"deep": "perhaps"}}, "config.deep", "true or false"),
    ({"config": {"lr": 1}}, "config.lr", "Expected it under `optim`"),
    ({"config": [1]}, "config", "is not a mapping"),
    ({"lr": 1}, "lr", "Expected it under `optim`"),
    ({"optin": {}}, "optin", "Did you mean 'optim'?"),
    ({"optim": {"lr": 0}}, "optim.lr", "greater than 0 (peak learning rate"),
    ({"optim": {"lr": float("nan")}}, "optim.lr", "a finite number"),
    ({"optim": {"lr": [1]}}, "optim.lr", "Expected a number"),
    ({"optim": {"schedule": "cosin"}}, "optim.schedule", "Did you mean 'cosine'?"),
    ({"optim": {"clip_grad": 0}}, "optim.clip_grad", "greater than 0"),
    ({"optim": {"decay_epochs": [1, "x"]}}, "optim.decay_epochs.1", "(got 'x')"),
    ({"optim": {3: 4}}, "optim", "a field's name is not text (got 3)"),
    ({"views": {"second": {"blur": "much"}}}, "views.second.blur", "(got 'much')"),
    ({"views": {"second": {"blur": True}}}, "views.second.blur", "yes or no"),
    ({"views": {"operations": 3}}, "views.operations", "`name: value` lines"),
    ({"optim": {"trust_coefficient": 0}}, "optim.trust_coefficient", "greater than 0"),
    ({"epochs": None}, "epochs", "a whole number"),
    ({"epochs": True}, "epochs", "not yes or no"),
    ({"epochs": 2.5}, "epochs", "(got 2.5)"),
    ({"method": "pupl"}, "method", "Did you mean 'pupil'?"),
    ({"method": None}, "method", "is missing"),
    ({"method": 3}, "method", "is not a name"),
    ({"preset": "bigg"}, "preset", "Did you mean 'big'?"),
    ({"student": None}, "student", "is missing"),
    ({"student": ["resnet18"]}, "student", "is not a mapping (got ['resnet18'])"),
    ({"student": 18}, "student.arch", "wrong value (got 18). Expected text"),
    ({"student": {}}, "student.arch", "is missing. Expected a timm model name"),
    ({"data": {"image_sise": 3}}, "data.image_sise", "Did you mean 'image_size'?"),
    ({"probe": {"point": "adaptor"}}, "probe.point", "Did you mean 'adapter'?"),
    ({"probe": {"point": "head"}}, "probe.point", "method 'pupil' has no such probe point"),
    ({"probe": {"record": "ridge"}}, "probe.record", "Expected a list"),
    ({"teacher": None}, "teacher", "method 'pupil' learns from a teacher"),
    ({"teacher": {**TEACHER, "checkpoint": "f"}}, "teacher", "both `checkpoint` and `train`"),
    ({"teacher": {"arch": "t", "train": {"method": "loner"}}}, "teacher.train.epochs", "is missing"),
    (
        {"teacher": {"arch": "t", "train": {"method": "pupil", "epochs": 1}}},
        "teacher.train.method",
        "needs a",
    ),
    (
        {"teacher": {"arch": "t", "train": {"method": "loner", "epochs": 1, "config": {"tu": 1}}}},
        "teacher.train.config.tu",
        "Did you mean 'tau'?",
    ),
    (
        {"teacher": {"arch": "t", "train": {"epochs": 1, "views": {"strenght": 1}}}},
        "teacher.train.views",
        "stren",
    ),
]


@pytest.mark.parametrize(("change", "path", "words"), CASES, ids=[f"{c[1]}-{i}" for i, c in enumerate(CASES)])
def test_a_mistake_is_named_where_it_stands(change: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve({**BASE, **change})
    assert caught.value.field.startswith(path)
    assert words in str(caught.value)
    with pytest.raises(UserError) as below:
        resolve({**BASE, **change}, "base")
    assert str(below.value) == f"base.{caught.value}"


def test_the_whole_has_to_be_a_mapping() -> None:
    with pytest.raises(UserError, match="the file: is not a mapping"):
        resolve([1])  # type: ignore[arg-type]


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(UserError) as caught:
        resolve({**BASE, "epochs": "x" * 10_000})
    assert len(str(caught.value)) < 500


def test_a_config_may_not_hide_a_field_of_trials() -> None:
    class Greedy(Method):
        name = "greedy"
        summary = ""

        class Config(MethodConfig):
            lr: float = 1.0

    with pytest.raises(TypeError, match="lr"):
        resolve({"method": "greedy", "student": {"arch": "s"}, "epochs": 1})


def test_a_method_may_not_be_called_like_a_section() -> None:
    class Views(Method):
        name = "views"
        summary = ""

    with pytest.raises(TypeError, match="views"):
        resolve({"method": "views", "student": {"arch": "s"}, "epochs": 1})


# --- flat names ---------------------------------------------------------------------------------------------


def test_flat_names() -> None:
    flat = flatten(resolve({**BASE, "student": {"arch": "s", "options": {"width": 2, "more": {"a": 1}}}}))
    assert (flat["method"], flat["epochs"], flat["seed"]) == ("pupil", 4, 0)
    assert (flat["gamma"], flat["lr"], flat["views.strength"]) == (0.1, 2e-3, 1.0)
    assert (flat["student.options.width"], flat["student.options.more.a"]) == (2, 1)
    assert flat["teacher.train.config.tau"] == 0.2
    assert not any(name.startswith(("config.", "optim.")) for name in flat)


trials = st.builds(
    lambda method, gamma, lr, hidden, decay, options, teacher, path, seed: {
        "method": method,
        "student": {"arch": "s", "options": options},
        "teacher": teacher,
        "data": {"path": path},
        "config": {"gamma": gamma, "kind": "mlp", "hidden": hidden}
        if method == "pupil"
        else {"tau": gamma + 1},
        "optim": {"lr": lr, "decay_epochs": decay},
        "epochs": 3,
        "seed": seed,
    },
    st.sampled_from(["pupil", "loner"]),
    st.floats(0, 1e6),
    st.floats(1e-12, 10),
    st.none() | st.integers(1, 10),
    st.lists(st.integers(0, 99), max_size=3),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2),
        lambda inner: st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), inner, max_size=2),
        max_leaves=4,
    ).filter(lambda value: isinstance(value, dict)),
    st.sampled_from([TEACHER, {"arch": "t", "checkpoint": "a/b.pt"}]),
    st.sampled_from([None, "/data"]),
    st.integers(0, 2**31),
)


@given(trials)
def test_flat_fields_say_everything(raw: dict[str, Any]) -> None:
    trial = resolve(raw)
    again = resolve(unflatten(flatten(trial)))
    assert again == trial and again.signature() == trial.signature()


def test_put_copies() -> None:
    raw = {"optim": {"lr": 1}}
    assert put(raw, ["optim", "x"], 2) == {"optim": {"lr": 1, "x": 2}}
    assert put(raw, ["student", "options", "w"], 2)["student"] == {"options": {"w": 2}}
    assert raw == {"optim": {"lr": 1}}


def test_fields_are_found_by_their_flat_names() -> None:
    both = ["pupil", "loner"]
    assert find_field("gamma", both, "axes").methods == {"pupil"}
    assert find_field("lr", both, "axes").methods == set(both)
    only = find_field("loner.lr", both, "axes")
    assert (only.path, only.methods, only.flat) == (("optim", "lr"), {"loner"}, "lr")
    assert find_field("student.options.width", both, "axes").path == ("student", "options", "width")
    assert find_field("teacher.train.config.tau", both, "axes").path[-1] == "tau"
    assert find_field("gamma", both, "axes").description == "weight of the second term"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gama", "Did you mean 'gamma'?"),
        ("tau", "'tau' belongs to loner"),
        ("strength", "`views.strength`"),
        ("optim.lr", "the bare name, 'lr'"),
        ("views.strenght", "Did you mean 'views.strength'?"),
        ("loner.tau", "method is not in this sweep"),
        ("pupil.tau", "no such field"),
        ("teacher.train", "no such field"),
        ("", "no such field"),
    ],
)
def test_a_field_that_is_not_there(name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        find_field(name, ["pupil"], "axes.it")
    assert caught.value.field == "axes.it" and words in str(caught.value)


def test_every_flat_field_of_a_trial_can_be_found() -> None:
    for name in flatten(resolve({**BASE, "student": {"arch": "s", "options": {"w": 1}}})):
        found = find_field(name, ["pupil"], "x")
        assert found.path[-1] == name.split(".")[-1]
    assert set(flat_fields(["loner"])) >= {"tau", "lr", "views.strength", "student.arch", "epochs"}
