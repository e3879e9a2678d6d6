"""docs/notebook.ipynb runs from top to bottom; then the stop button ends a sweep in good order."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from pages import ROOT

from raykd.records.history import History
from raykd.records.ledger import Ledger

NOTEBOOK = ROOT / "docs/notebook.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


class Ran(NamedTuple):
    """What a cell has shown: what `print` wrote, and the kinds and texts of other outputs."""

    printed: str
    shown: list[dict[str, str]]
    error: str  # the name of the exception, ""


class Kernel:
    """A kernel whose cells one may run."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client

    def run(self, code: str) -> Ran:
        """Run a cell to its end."""
        self.outputs: list[dict[str, Any]] = []
        reply = self.client.execute_interactive(code, output_hook=self._take, timeout=600)
        contents = [output["content"] for output in self.outputs]
        printed = "".join(content.get("text", "") for content in contents)
        shown = [content["data"] for content in contents if "data" in content]
        return Ran(printed, shown, reply["content"].get("ename", ""))

    def _take(self, message: dict[str, Any]) -> None:
        if message["msg_type"] in ("stream", "display_data", "update_display_data", "execute_result"):
            self.outputs.append(message)

    def children(self) -> list[str]:
        """The names of the processes that it has started."""
        kernel: Any = self.manager.provisioner
        return [process.name() for process in psutil.Process(kernel.pid).children(recursive=True)]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("notebook")
    manager, client = start_new_kernel(cwd=str(folder), env={**os.environ}, startup_timeout=240)
    found = Kernel(manager, client)
    found.folder = folder  # type: ignore[attr-defined]
    yield found
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def ran(kernel: Kernel) -> list[Ran]:
    """What every cell of code has shown."""
    return [kernel.run("".join(cell["source"])) for cell in CELLS if cell["cell_type"] == "code"]


def test_it_is_stored_without_outputs() -> None:
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert code and all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


def test_every_cell_works(ran: list[Ran]) -> None:
    assert [cell.error for cell in ran] == [""] * len(ran)
    everything = "\n".join(cell.printed + "".join(d["text/plain"] for d in cell.shown) for cell in ran)
    assert "axes.gamma.log: " in everything, "the mistake is told as on the command line"
    assert "student/model.safetensors" in everything and "report.html" in everything
    accuracy = re.search(r"torch.Size\(\[1797, 128\]\), ([\d.]+)\)", everything)
    assert accuracy is not None and float(accuracy[1]) > 0.6


def test_a_search_shows_a_bar_and_nothing_else(ran: list[Ran]) -> None:
    search = next(cell for cell in ran if len(cell.shown) > 3)
    assert not search.printed
    *bars, result = [data for data in search.shown if data.get("text/html") != ""]  # Tune's own stays empty
    assert all("<progress" in bar["text/html"] for bar in bars)
    assert 'value="1.0000"' in bars[-1]["text/html"] and "4 of 4 trials" in bars[-1]["text/plain"]
    assert "4 of 4 trials ended" in result["text/plain"]


def test_the_stop_button_ends_a_search_in_good_order(kernel: Kernel, ran: list[Ran]) -> None:
    """The extension is recorded, no process is left, the kernel lives on with its own handlers."""
    sweep = kernel.folder / "sweeps" / "from_notebook"  # type: ignore[attr-defined]
    request = kernel.client.execute("sweep.resume(extend=40)")
    until = time.monotonic() + 300
    while _started(sweep) <= 4 and time.monotonic() < until:
        time.sleep(0.2)
    kernel.manager.interrupt_kernel()
    while True:
        reply = kernel.client.get_shell_msg(timeout=120)
        if reply["parent_header"]["msg_id"] == request:
            break
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert not {"raylet", "gcs_server"} & set(kernel.children())
    history = History.of(Ledger.read(sweep))
    assert history.drivers[-1]["event"] == "end" and history.samples == 44
    said = kernel.run("import ray, signal; print(ray.is_initialized(), sweep.status['state'])")
    assert said.printed == "False interrupted\n"
    said = kernel.run(
        "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, raykd.open('from_notebook'))"
    )
    assert said.printed.startswith("True <sweep from_notebook")


def _started(sweep: Path) -> int:
    history = History.of(Ledger.read(sweep))
    return sum(trial.started is not None for trial in history.trials.values())
