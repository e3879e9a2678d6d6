"""Does pairing pay? A real study: the variance of paired differences over that of unpaired ones, arm by arm.

    python benchmarks/pairing.py                            # runs the study rrkd_anchors with 10 replicates
    python benchmarks/pairing.py --study retro_parts --replicates 5 --storage /tmp/pairing
    python benchmarks/pairing.py --read sweeps/rrkd_anchors # of a study that is there already

A study that was interrupted is gone on with by the same command. A ratio of 0.5 says that an unpaired study
would need twice the replicates for intervals as short; 1, that pairing gained nothing. Intervals are at 95 %,
exact by F where arms vary alike (`pooled_variance_ratio`).
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import numpy as np

from raykd.ablation.budget import with_costs
from raykd.ablation.conclusions import conclude
from raykd.ablation.guard import check_study
from raykd.ablation.study import load_study
from raykd.console.live import Console
from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.runs.sweep import Place, resume, run
from raykd.spec.study import StudySpec
from raykd.storage.open_storage import open_sweep

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from benchmark_statistics import pooled_variance_ratio


def main() -> None:
    parser = argparse.ArgumentParser(description="What sharing seeds between arms saves, on a real study.")
    parser.add_argument("--study", default="rrkd_anchors", help="a study's name or file")
    parser.add_argument("--replicates", type=int, default=10, help="seeds of every arm")
    parser.add_argument("--storage", type=Path, default=Path("sweeps"), help="folder of the sweep")
    parser.add_argument("--read", type=Path, help="folder of a study that has run, instead of running one")
    asked = parser.parse_args()
    history = read(asked.read) if asked.read else played(asked.study, asked.replicates, asked.storage)
    print("\n".join(table(history)))


def played(name: str, replicates: int, storage: Path) -> History:
    """The study, run or gone on with."""
    changes = [f"name=pairing_{Path(name).stem}", f"replicates={replicates}", "references=[]"]
    spec = load_study(name, changes, storage)
    place, console = Place(open_sweep(storage / spec.name)), Console()
    if place.sweep.has_ledger():
        return resume(place, console)
    return run(with_costs(check_study(spec)[0]), place, console)


def read(folder: Path) -> History:
    return History.of(Ledger.read(folder))


def table(history: History) -> list[str]:
    """Of each arm against the base, and of all arms together."""
    spec = StudySpec.model_validate(history.spec)
    results = conclude(spec, history)
    base = results.base
    probe = spec.arm_trial(base.label).probe.score
    lines = [
        f"{results.name}: {probe}, {len(base.scores)} replicates, on {platform.machine()}",
        f"{'arm':26}{'paired':>9}{'unpaired':>10}{'ratio':>7}  95 % interval",
    ]
    for arm in results.arms:
        if arm.comparison is None:
            continue
        pair = np.array([arm.scores, base.scores])
        pair = pair[:, np.isfinite(pair).all(axis=0)]
        paired, unpaired = (pair[0] - pair[1]).var(ddof=1), pair.var(axis=1, ddof=1).sum()
        interval = pooled_variance_ratio(pair)[1]
        lines.append(
            f"{arm.label:26}{paired:9.2f}{unpaired:10.2f}{paired / unpaired:7.2f}  "
            f"[{interval.low:.2f}, {interval.high:.2f}], {pair.shape[1]} pairs"
        )
    ratio, interval = pooled_variance_ratio([arm.scores for arm in results.arms])
    lines.append(f"{'all pairs of arms':45}{ratio:7.2f}  [{interval.low:.2f}, {interval.high:.2f}]")
    if not history.done:
        lines.append("not all replicates have ended: the same command goes on")
    return lines


if __name__ == "__main__":
    main()
