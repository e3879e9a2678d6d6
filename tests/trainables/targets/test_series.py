"""The key of a series changes with all that can change a bit of an answer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.features
import pytest
import torch
from small_methods import context, make_teacher, training_images

from trainables.targets import series as series_module
from trainables.targets.series import plain

X86 = "processor\t: 0\nmodel name\t: {}\ncpu MHz\t: {}\nflags\t\t: fpu {}\n\nprocessor\t: 1\n"
Change = Callable[[pytest.MonkeyPatch], None]


def key() -> str:
    images = training_images(context())._images
    images.fingerprint, images.size = "noise", 48  # type: ignore[misc]
    return plain(make_teacher(), "features", images, np.arange(3), 48, 8, torch.device("cpu")).key


CHANGES: dict[str, Change] = {
    "numpy": lambda patch: patch.setattr(np, "__version__", "1"),
    "pillow": lambda patch: patch.setattr(PIL, "__version__", "1"),
    "libjpeg": lambda patch: patch.setattr(PIL.features, "version", lambda _: "1"),
    "build of torch": lambda patch: patch.setattr(torch, "__version__", f"{torch.__version__}.other"),
    "CUDA": lambda patch: patch.setattr(torch.version, "cuda", "1"),
    "oneDNN": lambda patch: patch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2"),
    "MKL": lambda patch: patch.setenv("MKL_CBWR", "COMPATIBLE"),
    "ATen": lambda patch: patch.setenv("ATEN_CPU_CAPABILITY", "default"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_versions_and_variables_are_in_the_key(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    assert before == key()
    CHANGES[change](monkeypatch)
    assert key() != before


def test_the_processor_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(series_module, "_CPUINFO", cpuinfo)
    found = [key()]  # without /proc
    for name, clock, flags in (("a", 1, "avx2"), ("b", 1, "avx2"), ("a", 1, "avx512f"), ("a", 2, "avx2")):
        cpuinfo.write_text(X86.format(name, clock, flags))
        found.append(key())
    assert len(set(found)) == 4 and found[1] == found[4]  # its present clock does not matter


def test_the_code_is_that_which_was_loaded(tmp_path: Path) -> None:
    """Of all files, as they were when the process began."""
    package = Path(series_module.__file__).parents[1]
    shutil.copytree(package, tmp_path / "trainables", ignore=shutil.ignore_patterns("__pycache__"))
    code = """
import trainables.targets.series as series
from pathlib import Path
import sys
with Path("trainables", sys.argv[1]).open("a") as file:
    file.write("# edited")
print(series.__file__, series._CODE)
"""

    def loaded(edited: str) -> str:
        """The hash in a process that begins before this file is edited."""
        command = [sys.executable, "-c", code, edited]
        file, found = subprocess.check_output(command, cwd=tmp_path, text=True).split()
        assert str(tmp_path) in file
        return found

    first, second, third = loaded("core/precision.py"), loaded("views/recipes.py"), loaded("core/files.py")
    assert first == series_module._CODE and len({first, second, third}) == 3
