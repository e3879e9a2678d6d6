"""Every ablation study that comes with raykd: it opens as it should, compiles, its arms can be trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raykd.arms import ARM
from raykd.guard import check_study
from raykd.spec import about_space, spaces, studies
from raykd.study import load_study

torch.set_num_threads(1)
STUDIES = sorted(studies())


@pytest.mark.parametrize("name", STUDIES)
def test_it_opens_with_paper_cost_and_command(name: str) -> None:
    text = studies()[name].read_text(encoding="utf-8")
    head = text[: text.index("\n\n")]
    assert all(line.startswith("#") for line in head.splitlines())
    assert len(about_space(studies()[name])) > 20
    for word in ("# Paper ", "# Cost ", f"# Command  raykd ablate {name}"):
        assert word in head


@pytest.mark.parametrize("name", STUDIES)
def test_it_works(name: str) -> None:
    spec, remarks = check_study(load_study(name, [], Path("nowhere")), Path("nowhere"))
    assert spec.name == name and spec.study is not None
    assert remarks == []
    if spec.study.design != "compare":
        assert all(arm.also == {} for arm in spec.arms.values())
    trials = {spec.trial({ARM: label}, 0).signature() for label in spec.arms}
    assert len(trials) == len(spec.arms)
    cost = f"{spec.samples} trials of {spec.epochs} epochs"
    assert cost in studies()[name].read_text(encoding="utf-8"), f"{name} costs {cost}"


def test_studies_are_no_spaces() -> None:
    assert not set(studies()) & set(spaces())
    assert {"retro_parts", "rrkd_anchors", "methods"} <= set(studies())
