"""Full score curves of real trials, recorded for `benchmarks/search.py`.

    python benchmarks/record_curves.py                # 400 trials, 1 to 2 s of an idle core each
    python benchmarks/record_curves.py quickstart --trials 250 --set epochs=24

The default is the search space `all_methods` with an MLP for the student and a larger one for the teacher,
which are trained in a second or two, and the methods that need no feature maps of them. Configurations are
drawn at random, and each is trained to its last epoch in this process, without Ray and without stopping. A
curve holds the score after every epoch. The curves lie in `benchmarks/curves/NAME.parquet`, one row a trial,
with the space and its overrides; the file is written anew after each trial. The same command goes on where
the last one ended.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyarrow as pa
import pyarrow.parquet as pq

from raykd.searching.proposer import Proposal, Proposer
from raykd.spec.search import SearchSpec, load_sweep
from trainables.core.errors import TrialFailed
from trainables.core.files import cache_folder, replacing
from trainables.training.loop import prepare, train
from trainables.training.workspace import EpochReport, Workspace

CURVES = Path(__file__).resolve().parent / "curves"
# What the score needs: the probes that are recorded beside it change no training.
OVERRIDES = ("sampler={name: random, seed: 0}", "scheduler=none", "probe.record=[]", "references=[]")
MLPS = (
    "name=all_methods_mlp",
    "student={arch: raykd/mlp, options: {side: 16, hidden: [64, 64]}}",
    "teacher.arch=raykd/mlp",
    "teacher.options={side: 16, hidden: [512, 256]}",
    "method=[retro, disco, seed, compress, rekd_style, rrkd, projector, spkd, rkd, pkt, cc, moco, ssl_small, "
    "byol, barlow, autoencoder]",
    "axes.retro.adapter=[linear, mlp]",
    "axes.sacl.xd_form=",
)
SCHEMA = pa.schema(
    {"trial": pa.string(), "params": pa.string(), "scores": pa.list_(pa.float32()), "seconds": pa.float32()}
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("space", nargs="?", help="a search space on a small data set")
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as of `raykd run`")
    asked = parser.parse_args()
    overrides = [*(() if asked.space else MLPS), *asked.overrides]
    space = asked.space or "all_methods"
    spec = load_sweep(space, [*overrides, *OVERRIDES, f"samples={asked.trials}"])
    about = {"space": space, "overrides": json.dumps(overrides)}
    file = CURVES / f"{spec.name}.parquet"
    rows = pq.read_table(file).to_pylist() if file.exists() else []
    done = {row["trial"] for row in rows}
    for drawn in proposals(spec):
        if drawn.trial not in done:
            rows.append(recorded(spec, drawn))
            save(rows, file, about)
            print(f"{len(rows)}/{asked.trials} {drawn.trial} {rows[-1]['seconds']:.1f} s", flush=True)


def proposals(spec: SearchSpec) -> Iterator[Proposal]:
    """The configurations of a random search, in order, each once."""
    proposer = Proposer(spec)
    while (found := proposer.propose()) is not None:
        if isinstance(found, Proposal):
            yield found


def recorded(spec: SearchSpec, drawn: Proposal) -> dict[str, Any]:
    """The row of a trial, trained to its end. A trial that fails has a curve that ends early."""
    trial, scores, start = spec.trial(drawn.params, drawn.replicate), [], time.process_time()

    def report(said: EpochReport) -> bool:
        scores.append(said.metrics["score"])
        return True

    with tempfile.TemporaryDirectory() as folder:
        place = Workspace(Path(folder), cache_folder(), cache_folder() / "benchmark_teachers")
        prepare(trial, place)
        try:
            train(trial, report, place)
        except TrialFailed as failed:
            print(f"{drawn.trial} failed: {failed}", flush=True)
    seconds = time.process_time() - start
    return {"trial": drawn.trial, "params": json.dumps(drawn.params), "scores": scores, "seconds": seconds}


def save(rows: list[dict[str, Any]], file: Path, about: dict[str, str]) -> None:
    """All rows, whole or not at all."""
    file.parent.mkdir(exist_ok=True)
    with replacing(file) as temporary:
        table = pa.Table.from_pylist(rows, SCHEMA.with_metadata(about))
        pq.write_table(table, temporary, compression="zstd")


if __name__ == "__main__":
    main()
