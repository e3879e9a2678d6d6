"""Everything that only a GPU can show, in one command of at most 6 minutes.

    python benchmarks/gpu.py OUT                             # needs torch, timm and what trainables imports
    python benchmarks/gpu.py OUT --device cpu --rehearse     # all of it, small, on a CPU: does it work?
    python benchmarks/gpu.py OUT --parts speed compiled      # some of it

OUT (default: the environment variable OUT, or ./gpu) gets `gpu.md`, the tables, and `gpu.json`, their rows.
Each part runs in a process of its own with a time budget. What a part has found until it fails or its budget
is over is kept, its traceback is printed, and the next part goes on. docs/machines.md says how to run this on
a machine that is lent for minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]
# So that asking for a GPU leaves no CUDA context in the process that the parts are forked from.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

from gpu_parts import checks, speed  # noqa: E402
from gpu_parts.measure import place  # noqa: E402

# Part, seconds. The most valuable first: a machine may be taken back at any time.
PARTS = {
    "machine": (checks.machine, 20),
    "tests": (checks.tests, 30),
    "methods": (checks.each_method, 60),
    "speed": (speed.speed, 90),
    "pieces": (speed.where_it_goes, 45),
    "kernels": (speed.top_kernels, 15),
    "loader": (speed.loader, 20),
    "views": (checks.views, 20),
    "probes": (checks.probes, 15),
    "compiled": (speed.compiled, 120),
    "sweep": (checks.sweep, 60),
}
Way = Literal["fork", "spawn"]  # how the process of a part is made
LIMIT = 350  # seconds of all parts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path(os.environ.get("OUT", "gpu")))
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal")
    parser.add_argument("--rehearse", action="store_true", help="small networks, images and batches")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--slow", type=float, default=1.0, help="times by which every budget is multiplied")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # through `run`, which ends its part
    asked.out.mkdir(parents=True, exist_ok=True)
    ends, results = time.monotonic() + asked.slow * LIMIT, {}
    way: Way = "fork"
    for name in asked.parts:
        budget = min(asked.slow * PARTS[name][1], ends - time.monotonic())
        results[name] = run(name, asked.device, asked.rehearse, budget, way)
        if name == asked.parts[0] and results[name]["ended"] == "failed":
            # Something here began to use CUDA before the fork; a process of its own costs an import of torch.
            way = "spawn"
            results[name] = run(name, asked.device, asked.rehearse, budget, way)
        text = markdown(results, asked.device, asked.rehearse)
        (asked.out / "gpu.json").write_text(json.dumps(results, indent=1))
        (asked.out / "gpu.md").write_text(text)
    print(text)
    return 1 if any(result["ended"] != "whole" for result in results.values()) else 0


def run(name: str, device: str, rehearse: bool, budget: float, way: Way) -> dict[str, Any]:
    """The rows of a part, and how it ended: whole, failed, or out of time.

    It has a process of its own, so that an error of its CUDA context is not another part's. `way` is fork
    (torch is imported once) or spawn.
    """
    if budget <= 0:
        return {"rows": [], "seconds": 0.0, "ended": "not begun: no time was left"}
    start = time.monotonic()
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as rows:
        arguments = (name, device, rehearse, Path(rows.name))
        part = multiprocessing.get_context(way).Process(target=work, args=arguments)  # type: ignore[attr-defined]
        part.start()
        try:
            part.join(budget)
        except BaseException:
            end(part)
            raise
        ended = {0: "whole", None: f"out of its {budget:.0f} s"}.get(part.exitcode, "failed")
        if part.exitcode is None:
            end(part)
        found = [json.loads(line) for line in rows if line.endswith("\n")]
    spent = time.monotonic() - start
    print(f"{name}: {ended}, {spent:.0f} s, {len(found)} rows", file=sys.stderr, flush=True)
    return {"rows": found, "seconds": round(spent, 1), "ended": ended}


def work(name: str, device: str, rehearse: bool, file: Path) -> None:
    """In the part's own process: write each row as it comes."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setpgid(0, 0)  # so that what the part starts ends with it
    try:
        with file.open("w", buffering=1) as rows:
            for row in PARTS[name][0](place(device, rehearse)):
                rows.write(json.dumps(row, default=str) + "\n")
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def end(part: multiprocessing.process.BaseProcess) -> None:
    """End a part that is out of time, with the compilers or workers that it started."""
    if part.pid is not None:
        with contextlib.suppress(ProcessLookupError):  # it has ended just now
            os.killpg(part.pid, signal.SIGKILL)
    part.join()


def markdown(results: dict[str, Any], device: str, rehearse: bool) -> str:
    """All parts so far, each with its table."""
    lines = [f"# `benchmarks/gpu.py` on {device}{', a rehearsal' if rehearse else ''}, {time.strftime('%F')}"]
    for name, result in results.items():
        about = (PARTS[name][0].__doc__ or "").splitlines()[0]
        lines += ["", f"## {name} ({result['ended']}, {result['seconds']:.0f} s)", "", about, ""]
        lines += table(result["rows"])
    return "\n".join(lines) + "\n"


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown, a column for each key that any row has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return ["nothing"]
    cells = [[str(row.get(column, "")).replace("|", "\\|") for column in columns] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *cells)]


if __name__ == "__main__":
    sys.exit(main())
