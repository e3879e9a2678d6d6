"""The verbs, end to end, on one real sweep."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import timm
import torch
from command import SMALL, raykd
from PIL import Image
from safetensors.torch import load_file

from raykd.doctor.sweep_checks import check_workers
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.spec.search import load_sweep

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    storage = tmp_path_factory.mktemp("sweeps")
    spec = storage / "small.yaml"
    spec.write_text(SMALL)
    return storage, raykd("run", spec, "--storage", storage)


@pytest.fixture(scope="module")
def storage(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    assert ran[1].returncode == 0, ran[1].stdout + ran[1].stderr
    return ran[0]


def test_a_sweep_shows_its_best_beside_everything_it_has_to_be_compared_with(
    ran: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out = ran[1].stdout
    assert ran[1].returncode == 0, out + ran[1].stderr
    for row in (
        "best trial",
        "worst trial",
        "raw pixels",
        "the student, untrained",
        "the teacher",
        "no teacher: moco",
    ):
        assert row in out, out
    assert "raykd export small" in out
    data = "train: 1348 images of 10 classes; 449 of them held out for validation"
    assert out.index("data: digits") < out.index(data) < out.index("Ray's dashboard"), out
    for chatter in ("Ray is", "experimental", "ray.init", "WARNING", "raylet"):
        assert chatter not in out + ran[1].stderr, out + ran[1].stderr


def test_status_counts_and_names_the_best(storage: Path) -> None:
    found = json.loads(raykd("status", "small", "--storage", storage, "--json").stdout)
    assert found["samples"] == 4 and found["state"] == "done"
    assert (
        sum(found["trials"].values()) == 4 and found["trials"]["running"] == found["trials"]["waiting"] == 0
    )
    assert set(found["best"]) == {"trial", "score", "epoch"}
    best = json.loads(raykd("best", "small", "--storage", storage, "--json").stdout)
    assert {k: best[k] for k in ("trial", "score", "epoch")} == found["best"]
    assert best["config"]["method"] == "retro" and best["config"]["queue_size"] == 256
    assert best["config"]["adapter"] in ("linear", "mlp")


def test_tables_say_what_the_ledger_says(storage: Path) -> None:
    folder = storage / "small"
    history = History.of(Ledger.read(folder))
    trials = {row["trial"]: row for row in pq.read_table(folder / "trials.parquet").to_pylist()}
    curves = pq.read_table(folder / "curves.parquet").to_pylist()
    assert set(trials) == set(history.trials)
    for name, record in history.trials.items():
        row = trials[name]
        assert (row["status"], row["epoch"], row["score"]) == (record.status, record.epoch, record.best[0])  # type: ignore[index]
        assert row["config/gamma"] == record.params["gamma"]
        assert [c["epoch"] for c in curves if c["trial"] == name] == list(range(1, record.epoch + 1))
    assert {"trial", "method", "arm", "replicate", "status", "epoch", "score", "last", "wall_s"} <= set(
        next(iter(trials.values()))
    )


@pytest.mark.slow
def test_resume_extends_and_leaves_ended_trials_alone(storage: Path) -> None:
    before = History.of(Ledger.read(storage / "small"))
    done = raykd("resume", "small", "--storage", storage, "--extend", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    after = History.of(Ledger.read(storage / "small"))
    assert len(after.trials) == 6 and after.done
    for name, record in before.trials.items():
        assert after.trials[name].reports == record.reports
        assert after.trials[name].attempts == record.attempts == 1
    assert len(after.references) == len(before.references) == 4, "references are not measured again"


def test_resume_refuses_a_changed_spec_and_shows_the_difference(storage: Path) -> None:
    spec = storage / "small.yaml"
    spec.write_text(SMALL.replace("gamma: {log: [0.003, 3]}", "gamma: {log: [0.003, 1]}"))
    try:
        refused = raykd("resume", "small", "--storage", storage, here=True)
        assert refused.returncode == 2
        assert "axes.gamma.log: [0.003, 3.0] -> [0.003, 1.0]" in refused.stderr, refused.stderr
        assert raykd("resume", "small", "--storage", storage, "--as-started", here=True).returncode == 0
    finally:
        spec.write_text(SMALL)


def test_export_opens_in_timm_and_its_config_can_be_run(storage: Path, tmp_path: Path) -> None:
    best = json.loads(raykd("best", "small", "--storage", storage, "--json").stdout)
    out = tmp_path / "student"
    done = raykd("export", "small", "--storage", storage, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"config.yaml", "command.txt", "student", "README.md"} <= {p.name for p in out.iterdir()}
    assert not [p for p in out.rglob("*") if p.suffix in (".pt", ".pth", ".bin", ".pkl")], "safetensors only"

    opened = timm.create_model(f"local-dir:{out / 'student'}", pretrained=True).eval()
    kept = load_file(storage / "small" / "trials" / best["trial"] / "best.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in opened.state_dict().items() if name in kept)
    assert set(opened.state_dict()) == set(kept)

    command = (out / "command.txt").read_text().split()
    assert command[:2] == ["raykd", "run"], command
    # That it repeats the trial to the last bit: tests/raykd/export/test_export.py.
    planned = raykd("run", out / "config.yaml", "--storage", tmp_path / "again", "--dry-run", "--json")
    assert json.loads(planned.stdout)["trials"] == 1, planned.stdout + planned.stderr


def test_a_dry_run_says_everything_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    storage = tmp_path / "sweeps"
    plain = raykd("run", tmp_path / "small.yaml", "--storage", storage, "--dry-run")
    assert plain.returncode == 0, plain.stdout + plain.stderr
    data = json.loads(
        raykd("run", tmp_path / "small.yaml", "--storage", storage, "--dry-run", "--json").stdout
    )
    assert data["trials"] == 4 and data["most_epochs"] == 16 and len(data["samples"]) == 3
    assert [axis[0] for axis in data["axes"]] == ["gamma", "adapter"]
    assert not storage.exists()
    found = data["data"]
    assert (found["train_images"], found["validation_images"], found["test_images"]) == (899, 449, 449)
    assert all(line in plain.stdout for line in found["lines"])
    assert data["audit"] is None and "audit" not in plain.stdout
    audited = ["--storage", storage, "--dry-run", "--set", "proxy={audit: 0.5}"]
    said = raykd("run", tmp_path / "small.yaml", *audited).stdout
    # Halving stops 2 of 4 trials at epoch 1 and 1 at epoch 2; without an audit that leaves 8 of 16 epochs.
    told = "50% of the stopped trials run on, about 2 trials; that adds about 4 epochs to about 8, 50%"
    assert f"audit of the proxy: {told}" in said


def test_a_dry_run_says_what_the_files_of_a_data_set_are_taken_for(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    for part, count in (("training", 40), ("testing", 10), ("val", 5)):
        for i in range(count):
            path = tmp_path / "digits" / part / str(i % 10) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (16, 16), i).save(path)
    sets = ["data.name=folder", f"data.path={tmp_path / 'digits'}", "probe.score=ridge_1shot", "baseline="]
    sets += ["fixed.queue_size=16", "optim.batch_size=16", "teacher.train.config.queue_size=16"]
    sets += ["teacher.train.optim.batch_size=16", "probe.record=[]"]
    options = [part for value in sets for part in ("--set", value)]
    done = raykd("run", tmp_path / "small.yaml", "--storage", tmp_path, "--dry-run", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "train: 40 images of 10 classes (0, 1, 2, …, 9) in training/; 13 of them held out for validation",
        "test: 10 images in testing/",
        "left out: val/ (5; testing/ is the test part)",
    ):
        assert line in done.stdout, done.stdout


def test_workers_that_this_machine_cannot_hold_are_said_beforehand(tmp_path: Path) -> None:
    """The doctor refuses as `run` would; a dry run remarks it, for one may plan elsewhere."""
    (tmp_path / "small.yaml").write_text(SMALL)
    asked = [tmp_path / "small.yaml", "--storage", tmp_path, "--set", "workers={cpus: 4000}"]
    dry = raykd("run", *asked, "--dry-run")
    words = "workers.cpus: no node can hold a worker of 4000 CPUs"
    assert dry.returncode == 0 and words in " ".join(dry.stdout.split())
    spec = load_sweep(str(asked[0]), ["workers={cpus: 4000}"])
    check = check_workers(spec)
    assert check.ok is False and words in check.said and "--set workers.cpus=" in (check.mend or "")
    assert check_workers(load_sweep(str(asked[0]), [])).ok is True


@pytest.mark.parametrize(
    "what", ["methods", "spaces", "data", "teachers", "probes", "samplers", "schedulers"]
)
def test_lists(what: str, tmp_path: Path) -> None:
    done = raykd("list", what, "--json", "--storage", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert isinstance(rows, list)
    if what == "methods":
        assert {"retro", "moco"} <= {row["method"] for row in rows}
    if what == "schedulers":
        asha = next(row for row in rows if row["scheduler"] == "asha")
        assert asha["settings and their defaults"] == "grace 1, factor 2.0"


def test_reading_verbs_start_without_torch_and_ray(tmp_path: Path) -> None:
    for arguments in (["--help"], ["status", "--help"]):
        code = (
            "import sys; from raykd import cli\n"
            f"try: cli.main({arguments!r})\nexcept SystemExit: pass\n"
            "import raykd.records.views\n"
            "assert not {'torch', 'ray', 'optuna'} & set(sys.modules), sorted(sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
