"""Every ablation study that comes with raykd: it says what it is, compiles, its arms can be trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from command import raykd

from raykd.ablation.guard import check_study
from raykd.ablation.missing_files import without_files
from raykd.ablation.study import load_study
from raykd.spec.catalogue import catalogue
from raykd.spec.description import description_of
from raykd.spec.document import read_yaml
from raykd.spec.presets import presets_of
from raykd.spec.shipped import spaces, studies
from raykd.spec.study import StudySpec
from trainables.data.sources import find_source

torch.set_num_threads(1)
STUDIES = sorted(studies())
NOWHERE = Path("nowhere")
PRESETS = [
    pytest.param(name, preset, marks=[pytest.mark.slow] if over["base"]["data"]["name"] == "imagenet" else [])
    for name in STUDIES
    for preset, over in presets_of(read_yaml(studies()[name])).items()
]


@pytest.mark.parametrize("name", STUDIES)
def test_it_says_its_paper_cost_and_commands(name: str) -> None:
    said = description_of(studies()[name])
    assert len(said.about or "") > 20 and said.paper and said.cost and said.command
    assert said.command.startswith(f"raykd ablate {name}\n")
    assert "paper" in presets_of(read_yaml(studies()[name]))
    assert f"raykd ablate {name} --preset paper" in said.command


@pytest.mark.parametrize("name", STUDIES)
def test_it_works(name: str) -> None:
    spec, remarks = check_study(load_study(name, [], NOWHERE))
    assert spec.name == name
    assert remarks == []
    if spec.study.design != "compare":
        assert all(arm.also == {} for arm in spec.arms.values())
    says_what_it_costs(name, spec)


@pytest.mark.parametrize(("name", "preset"), [param.values for param in PRESETS])
def test_its_presets_are_the_same_question_at_another_scale(name: str, preset: str) -> None:
    spec, digits = load_study(name, [f"preset={preset}"], NOWHERE), load_study(name, [], NOWHERE)
    assert spec.name == f"{name}_{preset}" and spec.data["name"] != "digits"
    assert spec.study.design == digits.study.design
    varied = [{level for arm in s.arms.values() for level in arm.levels} for s in (spec, digits)]
    assert varied[0] == varied[1] or spec.study.design == "compare"
    trials = {spec.arm_trial(label).signature() for label in spec.arms}
    assert len(trials) == len(spec.arms)
    says_what_it_costs(name, spec)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_its_presets_are_planned_without_files_and_work_with_them(
    name: str, preset: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with without_files(load_study(name, [f"preset={preset}"], NOWHERE)) as (assumed, remarks):
        planned, more = check_study(assumed)
    assert more == []
    given = {"data": "base.data.path", "checkpoint": "base.teacher.checkpoint"}
    wanted = {"data"} | ({"checkpoint"} & set(planned.teacher or ()))
    assert len(remarks) == len(wanted)
    assert all(any(f"--set {given[file]}=" in remark for remark in remarks) for file in wanted)
    folder = tmp_path_factory.getbasetemp() / "files"
    sets = [f"preset={preset}", give_data(planned, folder)]
    if "checkpoint" in wanted:
        teacher = load_study(name, sets, NOWHERE).teacher or {}
        sets.append(f"base.teacher.checkpoint={teacher_file(teacher, folder)}")
    spec, remarks = check_study(load_study(name, sets, NOWHERE))
    assert remarks == []
    parameters = [[arm.trained_parameters for arm in s.arms.values()] for s in (planned, spec)]
    assert parameters[0] == parameters[1]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster for all studies, so that each need not start one."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True})
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.ray(second=True)
@pytest.mark.parametrize("name", STUDIES)
def test_it_runs_to_its_tables(name: str, address: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Cut short: an epoch a trial, and a teacher of one, which studies share."""
    storage = tmp_path_factory.getbasetemp() / "storage"
    sets = cut_short(name)
    done = raykd("ablate", name, "--storage", storage, "--address", address, *sets, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    spec = load_study(name, [], NOWHERE)
    assert all(label in (storage / name / "ablation.csv").read_text() for label in spec.arms), done.stdout


def test_studies_are_no_spaces() -> None:
    assert not set(studies()) & set(spaces())
    assert {"retro_parts", "rrkd_anchors", "methods"} <= set(studies())


def test_they_are_listed_with_their_cost_and_presets() -> None:
    columns, rows = catalogue("studies", NOWHERE)
    found = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert list(found) == STUDIES
    assert found["rrkd_relations"]["presets"] == "paper, paper_cifar100, paper_svhn"
    for name, row in found.items():
        spec = load_study(name, [], NOWHERE)
        assert f"{spec.samples} trials of {spec.epochs} epochs on digits" in row["cost"], row
        assert "\n" not in row["cost"] and "Command" not in row["cost"]


def says_what_it_costs(name: str, spec: StudySpec) -> None:
    trials = {spec.arm_trial(label).signature() for label in spec.arms}
    assert len(trials) == len(spec.arms)
    cost = f"{spec.samples} trials of {spec.epochs} epochs"
    assert cost in (description_of(studies()[name]).cost or ""), f"{spec.name} costs {cost}"


def cut_short(name: str) -> list[str]:
    raw = read_yaml(studies()[name])
    sets = ["base.epochs=1", "references=[]"]
    sets.append("max_replicates=3" if "max_replicates" in raw else "replicates=2")
    if "teacher" in raw["base"]:
        sets.append("base.teacher.train.epochs=1")
    for label, arm in raw.get("arms", {}).items():
        if "epochs" in arm:
            sets.append(f"arms.{label}={ {**arm, 'epochs': 2} }")
    return [word for pair in sets for word in ("--set", pair)]


def give_data(spec: StudySpec, folder: Path) -> str:
    """Data that may be fetched; or, where they may not, a folder with the names that are looked for."""
    source = find_source(spec.data["name"])
    if not getattr(source, "by_hand", ""):
        return "base.data.download=true"
    for any_of in getattr(source, "files", ()):
        (folder / any_of[0]).mkdir(parents=True, exist_ok=True)
    return f"base.data.path={folder}"


def teacher_file(teacher: dict[str, Any], folder: Path) -> Path:
    """A file as its origin has it, of random weights: MoCo's with its head, or a classifier's."""
    path = folder / Path(teacher["checkpoint"]).name
    if not path.exists():
        model = timm.create_model(teacher["arch"])
        weights = model.state_dict()
        if "moco" in path.name:
            width = model.num_features
            weights = {k: v for k, v in weights.items() if not k.startswith("fc.")}
            weights |= {"fc.0.weight": torch.zeros(width, width), "fc.0.bias": torch.zeros(width)}
            weights |= {"fc.2.weight": torch.zeros(128, width), "fc.2.bias": torch.zeros(128)}
            weights = {f"module.encoder_q.{k}": v for k, v in weights.items()}
        torch.save({"state_dict": weights}, path)
    return path
