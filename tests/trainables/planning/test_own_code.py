"""What a user's own modules add: methods, sources, probes, networks; and what of it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from own_code import METHOD, forgotten, write_package

from trainables.core import plugins
from trainables.core.errors import UserError
from trainables.data.data_sets import store_folder
from trainables.data.sources import find_source, sources
from trainables.evaluation.probes import find_probe, load_probe, probes
from trainables.methods import load_method, methods
from trainables.networks.backbones import build_backbone, check_arch
from trainables.networks.plugin_networks import place_of
from trainables.networks.zoo import architectures
from trainables.planning.check import TrialChecker
from trainables.planning.plugins import bring
from trainables.spec.trial import DataSpec, ModelSpec, TrialSpec
from trainables.teachers.architecture import guess
from trainables.teachers.pretrained.read import read_checkpoint
from trainables.training.flat_names import flatten
from trainables.training.resolve import resolve

TEACHER = {"arch": "test_resnet", "train": {"method": "moco", "preset": "digits", "epochs": 1}}
OWN: dict[str, Any] = {
    "method": "own_cosine",
    "student": {"arch": "own_lab.networks:make_net", "options": {"width": 24}},
    "teacher": TEACHER,
    "data": {"name": "own_stripes", "image_size": 16},
    "probe": {"score": "own_centroid"},
    "epochs": 1,
}
OURS: dict[str, Any] = {"method": "moco", "student": {"arch": "test_resnet"}, "epochs": 1}


@pytest.fixture(autouse=True)
def package(tmp_path: Path) -> Iterator[Path]:
    with forgotten():
        yield write_package(tmp_path)


def test_each_registry_has_what_a_package_adds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such method"):
        load_method("own_cosine")
    said = bring(["own_lab"], [tmp_path])
    assert said == ["own_lab: method own_cosine, data source own_stripes, probe own_centroid"]
    assert load_method("own_cosine") is methods()["own_cosine"]
    assert find_source("own_stripes") is sources()["own_stripes"]
    assert type(load_probe("own_centroid")) is probes()["own_centroid"]
    assert build_backbone(ModelSpec(**OWN["student"]), 0)(torch.zeros(2, 3, 16, 16)).shape == (2, 24)


def test_a_trial_says_which_code_it_takes_and_another_code_is_another_trial(
    tmp_path: Path, package: Path
) -> None:
    bring(["own_lab"], [tmp_path])
    trial = resolve(OWN)
    TrialChecker().check(trial)
    offering = {"own_lab", "own_lab.losses", "own_lab.networks", "own_lab.probes", "own_lab.sources"}
    assert set(trial.plugins) == offering and len(set(trial.plugins.values())) == 1
    assert "plugins" not in flatten(trial)
    again = TrialSpec.model_validate(trial.model_dump(mode="json"))
    assert again == trial and again.signature() == trial.signature()
    images = store_folder(trial.data, tmp_path)
    # Where in the package a class lies is no difference; what its files hold is one.
    moved = trial.model_copy(update={"plugins": {"own_lab.elsewhere": trial.plugins["own_lab"]}})
    assert moved.signature() == trial.signature()
    with forgotten():
        (package / "losses.py").write_text(METHOD.replace("1 - nn", "2 - nn"))
        _forget_modules()
        bring(["own_lab"], [tmp_path])
        other = resolve(OWN)
        assert other.signature() != trial.signature() and other.arm() != trial.arm()
        assert store_folder(other.data, tmp_path) != images


def _forget_modules() -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("own_lab")]:
        del sys.modules[name]


def test_a_trial_of_raykd_s_own_parts_has_the_name_it_had(tmp_path: Path) -> None:
    before = resolve(OURS)
    bring(["own_lab"], [tmp_path])
    after = resolve(OURS)
    assert after.plugins == {} and "plugins" not in after.model_dump()
    assert after.signature() == before.signature()
    assert after.signature() == resolve({**OURS, "plugins": ["own_lab"]}).signature()


def test_a_teacher_s_training_by_a_user_s_method_counts(tmp_path: Path) -> None:
    bring(["own_lab"], [tmp_path])
    trial = resolve({**OWN, "student": {"arch": "test_resnet"}, "data": {}, "probe": {}})
    assert set(trial.plugins) == {"own_lab.losses"}
    own = {"arch": "own_lab.networks:make_net", "train": {"method": "moco", "epochs": 1}}
    assert "own_lab.networks" in resolve({**OWN, "method": "spkd", "teacher": own}).plugins


@pytest.mark.parametrize(
    ("name", "text", "field", "words"),
    [
        ("own_empty", "x = 1\n", "plugins", "adds neither a method nor a data source nor a probe"),
        ("own_taken", METHOD.replace("own_cosine", "retro"), "own_taken.OwnCosine.name",
         "trainables.methods.retro defines a method with this name"),
        ("own_half", METHOD.replace("    summary = \"the teacher's direction of features\"\n", ""),
         "own_half.OwnCosine.summary", "is missing"),
        ("own_table", "SOURCES = ('stripes',)\n", "own_table.SOURCES", "something else than data sources"),
        ("own_metric", "from own_lab.sources import Stripes\nclass Own(Stripes):\n    metric = 'top5'\n"
         "SOURCES = (Own(),)\n", "own_metric.SOURCES", "own_stripes has an unknown metric (got 'top5')"),
        ("own_probe", "from own_lab.probes import OwnProbe\nclass Knn(OwnProbe):\n    label = 'knn'\n",
         "own_probe", "has this name already"),
    ],
)  # fmt: skip
def test_a_plug_in_that_is_wrong_is_refused(
    name: str, text: str, field: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(UserError) as caught:
        bring([name], [tmp_path])
    assert caught.value.field == field and words in str(caught.value)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("own_lab.networks:make", "own_lab.networks has no 'make'"),
        ("own_lab.networks:constant", "is nothing that can be called"),
        ("own_lab.nets:make_net", "there is no such module"),
        ("own_lab.networks:make_none", "does not return a torch.nn.Module"),
        ("own_lab.networks:fail", "cannot be built: RuntimeError: no weights here"),
        ("own_lab.networks:make_maps", "gives a tensor of shape (2, 16, 222, 222) for two images"),
    ],
)
def test_a_network_that_is_wrong_is_refused_at_its_name(arch: str, words: str, tmp_path: Path) -> None:
    plugins.look_in([tmp_path])
    with pytest.raises(UserError) as caught:
        check_arch(arch, "student")
        build_backbone(ModelSpec(arch=arch), 0)
    assert caught.value.field == "student.arch" and words in str(caught.value)


def test_an_option_that_a_network_lacks_is_refused(tmp_path: Path) -> None:
    plugins.look_in([tmp_path])
    with pytest.raises(UserError, match=r"student\.options: .*unexpected keyword argument 'depth'"):
        check_arch("own_lab.networks:make_net", "student", {"depth": 3})


@pytest.mark.parametrize("arch", ["hf-hub:timm/resnet18", "resnet18.tag", "torchvision/resnet18", "a b:c"])
def test_other_names_are_no_place(arch: str) -> None:
    assert place_of(arch) is None


def test_entry_points_add_what_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins.look_in([tmp_path])
    entries = {
        plugins.METHODS: ("own", "own_lab.losses"),
        plugins.SOURCES: ("own", "own_lab.sources:SOURCES"),
        plugins.PROBES: ("own", "own_lab.probes:OwnProbe"),
        plugins.MODELS: ("own_net", "own_lab.networks:make_net"),
    }
    found = {group: (metadata.EntryPoint(*entry, group),) for group, entry in entries.items()}
    monkeypatch.setattr(plugins, "entry_points", lambda group: found[group])
    trial = resolve({**OWN, "student": {"arch": "own_net"}})
    assert set(trial.plugins) == {f"own_lab.{part}" for part in ("losses", "networks", "probes", "sources")}
    TrialChecker().check(trial)
    assert "own_net" in architectures()
    assert find_probe("own_centroid") is not None


def test_a_broken_entry_point_stops_only_those_who_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_broken.py").write_text("raise ValueError('broken')")
    plugins.look_in([tmp_path])
    entry = (metadata.EntryPoint("own", "own_broken", plugins.METHODS),)
    monkeypatch.setattr(plugins, "entry_points", lambda group: entry if group == plugins.METHODS else ())
    assert resolve(OURS).plugins == {}
    with pytest.raises(UserError, match=r"plugins: its import fails with ValueError: broken"):
        load_method("own_cosine")


def test_a_checkpoint_that_names_a_network_imports_nothing(tmp_path: Path) -> None:
    plugins.look_in([tmp_path])
    (tmp_path / "own_trap.py").write_text("raise SystemExit('imported')")
    weights = build_backbone(ModelSpec(arch="test_resnet"), 0).model.state_dict()
    torch.save({"arch": "own_trap:make", "state_dict": weights}, tmp_path / "trap.pth")
    read = read_checkpoint(tmp_path / "trap.pth", "FILE")
    assert read.facts.arch == "own_trap:make"
    found = guess(read)
    assert found is None or found.model.arch != "own_trap:make"


def test_the_images_of_our_sources_lie_where_they_lay() -> None:
    assert store_folder(DataSpec(), Path("cache")).name.startswith("digits-")
