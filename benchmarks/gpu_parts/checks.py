"""Is it right on a GPU? The device, the tests that need one, every method, every view recipe, a sweep."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu_parts.measure import Place, Row, peak, seconds, traced
from gpu_parts.trials import Steps, noise, run_of, teacher_of, trial_of
from trainables.core.precision import whole_float32
from trainables.evaluation.evaluate import Examiner
from trainables.methods import methods
from trainables.networks.backbones import build_backbone
from trainables.spec.trial import ModelSpec, ProbeSpec, ViewSpec
from trainables.training.taught import channels_last
from trainables.views.augmented import Views
from trainables.views.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 0.1  # of a loss in bfloat16, relative to float32: the networks round to 8 bits
NO_CUDA = "no CUDA device"  # the reason that tests which need a GPU give for their skip


def machine(at: Place) -> Iterator[Row]:
    """Versions, and the device's own peaks."""
    yield {"what": "torch, Python", "found": f"{torch.__version__}, {platform.python_version()}"}
    if at.cuda:
        about = torch.cuda.get_device_properties(at.where)
        yield {"what": "device, GiB", "found": f"{about.name}, {about.total_memory / 2**30:.1f}"}
        yield {"what": "CUDA, cuDNN", "found": f"{torch.version.cuda}, {torch.backends.cudnn.version()}"}
    for dtype in (torch.bfloat16, torch.float32):
        yield {"what": f"{dtype} product, TFLOP/s", "found": round(peak(at, dtype) / 1e12, 2)}
    some = torch.randn(2**28 if at.cuda else 2**22, device=at.where)
    moved = 2 * some.element_size() * len(some)
    yield {"what": "copy, GB/s", "found": round(moved / seconds(some.clone, at.where, 5) / 1e9, 1)}


def tests(at: Place) -> Iterator[Row]:
    """The tests that machines without a GPU skip. The part `views` compares the same without pytest."""
    folder = ROOT / "tests" / "trainables"
    files = [str(path) for path in sorted(folder.rglob("test_*.py")) if NO_CUDA in path.read_text()]
    missing = [name for name in ("pytest", "hypothesis", "xdist") if importlib.util.find_spec(name) is None]
    if missing:
        yield {"test": f"{', '.join(missing)} not installed", "outcome": "not run"}
        return
    import pytest

    class OnlyCuda:
        """Keeps those tests, and what became of them."""

        def __init__(self) -> None:
            self.outcomes: dict[str, str] = {}

        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            def reasons(item: pytest.Item) -> list[Any]:
                return [mark.kwargs.get("reason") for mark in item.iter_markers("skipif")]

            items[:] = [item for item in items if NO_CUDA in reasons(item)]

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.when == "call" or report.outcome != "passed":
                self.outcomes[report.nodeid] = report.outcome

    only = OnlyCuda()
    pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *files], plugins=[only])
    for test, outcome in only.outcomes.items():
        yield {"test": test.removeprefix("tests/trainables/"), "outcome": outcome}
    if not only.outcomes:
        raise RuntimeError(f"no test with {NO_CUDA!r} was collected from {files}")


def each_method(at: Place) -> Iterator[Row]:
    """Two steps in bfloat16 and in float32 from the same weights on the same views: do the losses agree?"""
    size = replace(at.size, side=96, batch=64, images=4096, queue=1024) if at.cuda else at.size
    data, teacher = noise(size), teacher_of(size)
    for name in methods():
        losses: dict[str, list[float]] = {}
        try:
            for precision in ("float32", "bfloat16"):
                exact = whole_float32() if precision == "float32" else contextlib.nullcontext()
                trial = trial_of(name, size.students[0], size, precision)
                with run_of(trial, data, teacher, at.where) as run, exact:
                    steps = Steps(run)
                    losses[precision] = [float(steps.on_ready_views()) for _ in range(2)]
        except Exception as error:
            yield {"method": name, "agree": f"failed: {type(error).__name__}: {error}"}
            continue
        pairs = list(zip(losses["bfloat16"], losses["float32"], strict=True))
        worst = max(abs(half - full) / max(abs(full), 1e-6) for half, full in pairs)
        found = {f"{kind}, step {i + 1}": f"{of[i]:.4g}" for i in (0, 1) for kind, of in losses.items()}
        agree = "yes" if worst <= TOLERANCE else "NO"
        yield {"method": name, **found, "difference, %": round(100 * worst, 2), "agree": agree}


def views(at: Place) -> Iterator[Row]:
    """Each recipe on the device against the CPU, its time, and what it starts."""
    size = at.size
    images = noise(replace(size, images=size.batch)).train.take(np.arange(size.batch))
    there, ids = images.to(at.where), np.arange(size.batch)
    few = ids[:32]
    for recipe in sorted(RECIPES):
        made = Views(ViewSpec(recipe=recipe), size.side + size.margin, size.side, size.batch, 1, 0).epoch(1)

        def apply(made: Any = made) -> None:
            made.apply(there, ids, 0)

        here = made.apply(images[: len(few)], few, 0)
        gap = (made.apply(there[: len(few)], few, 0).cpu() - here).abs().max()
        found = traced(apply, at)
        yield {
            "recipe": recipe,
            "largest difference to the CPU": f"{float(gap):.1e}",
            f"ms, {size.batch} views of {size.side} px": round(
                1000 * seconds(apply, at.where, size.steps), 2
            ),
            "kernels": found.kernels,
            "copies": found.copies,
        }


def probes(at: Place) -> Iterator[Row]:
    """The probes of one network on the device and on the CPU: the same scores, but for rounding?"""
    size = replace(at.size, side=96, images=2000) if at.cuda else at.size
    data, spec = noise(size), ProbeSpec(score="ridge_5shot", record=("ridge", "knn", "rankme"))
    student = build_backbone(ModelSpec(arch=size.students[0]), 0).eval()
    found = []
    for where in (torch.device("cpu"), at.where):
        student.to(where)
        examiner = Examiner(spec, data, size.side, where)
        found.append(examiner.evaluate(lambda images: student(channels_last(images))))
    for name, score in found[0].items():
        if name.startswith("probe/") and not name.endswith("_se"):
            yield {"probe": name[6:], "CPU": f"{score:.6g}", str(at.where): f"{found[1][name]:.6g}"}


def sweep(at: Place) -> Iterator[Row]:
    """A small sweep through Ray, where it can be imported: which device do its workers say, and how long?"""
    if importlib.util.find_spec("ray") is None:
        yield {"what": "Ray is not installed", "found": "not run"}
        return
    changes = ["epochs=2", "samples=4", "scheduler=none", "teacher.train.epochs=1", "references=[]"]
    workers = [] if at.cuda else ["workers.gpus=0"]
    with tempfile.TemporaryDirectory(prefix="rk", dir="/tmp") as folder:
        command = [sys.executable, "-m", "raykd.cli", "run", "quickstart", "--storage", folder]
        for change in (*changes, *workers):
            command += ["--set", change]
        start = time.perf_counter()
        environment = {**os.environ, "RAY_TMPDIR": folder, "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        lines = [line for line in ran.stdout.splitlines() if line.strip()]
        yield {"what": "exit code, seconds", "found": f"{ran.returncode}, {time.perf_counter() - start:.0f}"}
        for line in (*lines[:3], *lines[-2:], *(ran.stderr.splitlines()[-3:] if ran.returncode else [])):
            yield {"what": "said", "found": line}
