"""Presets of studies: what they change, how they are chosen, and plans of what is not on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raykd.ablation.study import load_study
from raykd.cli import main
from trainables.core.errors import UserError

torch.set_num_threads(1)

STUDY = """\
name: kinds
base:
  method: rrkd
  preset: digits
  student: {arch: test_efficientnet, options: {channel_multiplier: 0.5}}
  teacher: {arch: test_resnet, train: {method: moco, preset: digits, epochs: 2}}
  data: {name: digits, image_size: 16}
  views: {recipe: digits, strength: 0.5}
  epochs: 2
  fixed: {lr: 0.004}
design: one_at_a_time
factors:
  anchors: [in_batch, random]
replicates: 3
published: {source: Table 5, values: {random: 80.21}}
presets:
  large:
    base:
      student: {arch: raykd/ae_32}
      data: {name: mnist, image_size: 28}
      views: {recipe: none}
      fixed: {}
    replicates: 4
    published: {source: Table 6, values: {random: 70}}
  named: {name: other}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kinds.yaml"
    path.write_text(STUDY)
    return path


def test_what_a_preset_says_takes_the_place_of_whole_sections(file: Path) -> None:
    plain = load_study(file, [], file.parent)
    large = load_study(file, ["replicates=5", "preset=large", "base.epochs=7"], file.parent)
    assert (plain.name, plain.student["arch"], plain.fixed) == ("kinds", "test_efficientnet", {"lr": 0.004})
    assert large.name == "kinds_large" and large.student == {"arch": "raykd/ae_32"} and large.fixed == {}
    assert large.views == {"recipe": "none"} and large.teacher == plain.teacher
    assert large.epochs == 7 and large.study.replicates == 5
    assert large.study.published is not None and large.study.published.source == "Table 6"
    assert list(large.arms) == list(plain.arms)


def test_it_may_have_a_name_and_be_chosen_in_the_file(file: Path) -> None:
    assert load_study(file, ["preset=named"], file.parent).name == "other"
    assert load_study(file, ["preset=large", "name=mine"], file.parent).name == "mine"
    file.write_text(STUDY + "preset: large\n")
    assert load_study(file, [], file.parent).name == "kinds_large"
    assert load_study(file, ["preset=named"], file.parent).name == "other"


@pytest.mark.parametrize(
    ("override", "text", "said"),
    [
        ("preset=lage", STUDY, "preset: no such preset of this study .*Did you mean 'large'"),
        ("preset=large", STUDY.partition("presets:")[0], "preset: this study has no presets"),
        ("preset=[large]", STUDY, "preset: is not a name"),
        (
            "preset=large",
            STUDY.partition("  large:")[0] + "  large: 3\n",
            r"presets\.large: is not a mapping",
        ),
        ("preset=large", STUDY.replace("replicates: 4", "replicate: 4"), "replicate: no such field"),
    ],
)
def test_mistakes(file: Path, override: str, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        load_study(file, [override], file.parent)


def test_published_numbers_stand_at_levels_as_yaml_reads_them(file: Path) -> None:
    numbers = STUDY.replace("anchors: [in_batch, random]", "lr: [1e-4, 64, 0.5]")
    file.write_text(numbers.replace("values: {random: 80.21}", "values: {1e-4: 1, 64.0: 2, lr=0.5: 3}"))
    spec = load_study(file, [], file.parent)
    assert spec.study.published is not None
    assert spec.study.published.values == {"lr=0.0001": 1, "lr=64": 2, "lr=0.5": 3}
    file.write_text(numbers.replace("values: {random: 80.21}", "values: {64: 1, '64': 2}"))
    with pytest.raises(UserError, match=r"published\.values: has a level twice"):
        load_study(file, [], file.parent)
    file.write_text(numbers.replace("values: {random: 80.21}", "values: {65: 1}"))
    with pytest.raises(UserError, match=r"published\.values\.65: is no arm of this study"):
        load_study(file, [], file.parent)


def test_a_plan_needs_no_data_and_a_run_says_how_to_give_them(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = ["ablate", str(file), "--preset", "large", "--storage", str(file.parent / "sweeps")]
    with pytest.raises(SystemExit) as ended:  # on a machine that cannot hold it, nothing is timed
        main([*large, "--set", "base.student.options.side=28", "--set", "workers.cpus=9999", "--plan"])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and "kinds_large" in out and "--set base.data.path=" in out, out
    with pytest.raises(SystemExit) as ended:
        main(large)
    assert ended.value.code == 2 and "--set base.data.path=" in capsys.readouterr().err
    file.write_text(STUDY.replace("data: {name: mnist, image_size: 28}", "data: {name: folder}"))
    with pytest.raises(SystemExit) as ended:
        main([*large, "--plan"])
    assert ended.value.code == 2 and "base.data.path: is needed by the source" in capsys.readouterr().err
    sets = ["--set", "base.teacher={arch: test_resnet, checkpoint: gone.pth}"]
    with pytest.raises(SystemExit) as ended:
        main(["ablate", str(file), *sets])
    assert ended.value.code == 2
    assert "base.teacher.checkpoint=/where/it/is/gone.pth" in capsys.readouterr().err
    assert not (file.parent / "sweeps").exists()
