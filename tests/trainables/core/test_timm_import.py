"""timm is imported without Weights & Biases, which stays there for who asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PACKAGE = "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n"  # in wandb's place


def test_timm_does_not_bring_wandb_along_and_others_can(tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text(PACKAGE)
    code = (
        "import sys; from pathlib import Path; import trainables.networks.zoo, timm.utils.summary\n"
        f"mark = Path({str(tmp_path / 'imported')!r})\n"
        "assert 'wandb' not in sys.modules and not mark.exists(), 'imported by timm'\n"
        "assert timm.utils.summary.get_outdir and not hasattr(timm.utils.summary, 'wandb')\n"
        "import wandb; assert mark.exists()\n"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path.cwd()), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
