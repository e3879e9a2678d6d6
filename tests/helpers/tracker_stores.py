"""What the stores of experiment trackers hold, read by the packages' own means as plain data."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Runs = dict[str, dict[str, Any]]

_BLOCK, _HEAD = 32768, 7  # bytes; of a LevelDB log, which is how wandb writes its files


def mlflow_runs(uri: str, experiment: str) -> Runs:
    """Run -> its name, status, times, parameters, tags and metrics. Refuses two runs of one trial."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found: Runs = {}
    [where] = [e for e in client.search_experiments() if e.name == experiment]
    for run in client.search_runs([where.experiment_id], max_results=1000):
        metrics = {
            name: [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        tags = dict(run.data.tags)
        assert tags["raykd.run"] not in found, "two runs of one trial"
        found[tags["raykd.run"]] = {
            "name": run.info.run_name,
            "status": run.info.status,
            "times": (run.info.start_time, run.info.end_time),
            "params": dict(run.data.params),
            "tags": tags,
            "metrics": metrics,
        }
    return found


def wandb_runs(folder: Path) -> Runs:
    """Run -> its name, group, type, config, epochs, summary and exit code, of all files to be synced."""
    found: Runs = {}
    for path in sorted(folder.glob("offline-run-*/*.wandb")):
        run: dict[str, Any] = {"epochs": [], "summary": {}, "preempted": False}
        for record in _records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                config.pop("_wandb", None)
                run |= {
                    "id": record.run.run_id, "name": record.run.display_name, "project": record.run.project,
                    "group": record.run.run_group, "type": record.run.job_type, "config": config,
                }  # fmt: skip
            elif kind == "history":
                items = {_key(item): json.loads(item.value_json) for item in record.history.item}
                items.pop("_runtime", None)
                run["epochs"].append((record.history.step.num, items))
            elif kind == "summary":
                items = {_key(item): json.loads(item.value_json) for item in record.summary.update}
                run["summary"] |= {k: v for k, v in items.items() if not k.startswith("_")}
            elif kind == "preempting":
                run["preempted"] = True
            elif kind == "exit":
                run["exit"] = record.exit.exit_code
        assert "exit" in run, f"{path} is not whole"
        assert run["id"] not in found, "two files of one run"
        found[run.pop("id")] = run
    return found


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def _records(path: Path) -> Iterator[Any]:
    """The records of wandb's file: messages in a LevelDB log with a header of 7 bytes. Checks every CRC."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, parts = _HEAD, b""
    while at + _HEAD <= len(data):
        room = _BLOCK - at % _BLOCK
        if room < _HEAD:
            at += room
            continue
        checksum, size, kind = struct.unpack_from("<IHB", data, at)
        body = data[at + _HEAD : at + _HEAD + size]
        assert zlib.crc32(bytes([kind]) + body) & 0xFFFFFFFF == checksum or len(body) == size, (
            f"{path} is torn"
        )
        parts += body
        at += _HEAD + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""
