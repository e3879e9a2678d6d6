"""`raykd list students`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import raykd

from raykd.spec.catalogue import _STUDENTS, catalogue
from trainables.core.errors import UserError
from trainables.networks.zoo import architectures, check_name

HERE = Path()


def test_the_default_list_names_networks_that_there_are() -> None:
    for name in _STUDENTS:
        check_name(name, "student")
    assert 20 <= len(set(_STUDENTS)) == len(_STUDENTS) <= 30
    assert {name.partition("/")[0] for name in architectures() if "/" in name} == {"torchvision", "raykd"}


def test_a_pattern_chooses_from_all_libraries() -> None:
    columns, rows = catalogue("students", HERE, "*resnet18", 48)
    names = [row[0] for row in rows]
    assert {"resnet18", "torchvision/resnet18"} <= set(names) and names == sorted(names)
    row = dict(zip(columns, rows[names.index("resnet18")], strict=True))
    assert row["parameters, M"] == 11.176512 and row["map side"] == 2 and row["small stem"] is True
    _, (tagged,) = catalogue("students", HERE, "resnet18.a1_in1k", 48)
    assert tagged[1:] == rows[names.index("resnet18")][1:]


def test_why_a_network_cannot_take_a_size_stands_in_its_row() -> None:
    _, ((name, *sizes, why),) = catalogue("students", HERE, "test_convnext", 16)
    assert name == "test_convnext" and set(sizes) == {None}
    assert why.startswith("cannot take images of 16 px (")


@pytest.mark.parametrize(
    ("what", "pattern", "image_size", "message"),
    [
        ("students", "resent18", None, "PATTERN: no such architecture.*the nearest: resnet18"),
        ("students", "raykd/mlp_33", None, "PATTERN: no such architecture.*raykd/mlp_32"),
        ("students", "*nonet*", None, "PATTERN: no architecture has such a name"),
        ("students", "raykd/*", 4, "--image-size: no size of images.*Expected pixels, 8 to 1024"),
        ("student", None, None, "list: no such list.*Did you mean 'students'"),
        ("data", "resnet18", None, "PATTERN: goes with `raykd list students`, not with `data`"),
        ("data", None, 32, "--image-size: goes with `raykd list students`"),
    ],
)
def test_mistakes(what: str, pattern: str | None, image_size: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        catalogue(what, HERE, pattern, image_size)


def test_the_command(tmp_path: Path) -> None:
    arguments = ["list", "students", "raykd/*_32", "--image-size", "12", "--storage", tmp_path]
    done = raykd(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["arch"]: row for row in json.loads(done.stdout)}
    assert rows.keys() == {"raykd/ae_32", "raykd/mlp_32"}
    assert rows["raykd/mlp_32"]["multiply-adds, M"] == (144 * 32 + 32 * 32) / 1e6
    assert rows["raykd/mlp_32"]["needs"] == "options.side: 12" and rows["raykd/ae_32"]["map side"] is None
    table = raykd(*arguments)
    assert table.returncode == 0 and "raykd/ae_32" in table.stdout and "None" not in table.stdout
