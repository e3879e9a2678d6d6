"""Compiled networks: the same training, files and probes; compiled once for an architecture and shape.

The backend `eager` runs what torch's compiler has traced by the same operations, so on a CPU the bits must be
the same, and no C++ compiler is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_trials import assert_same_bits, final, run, tiny, workspace

from trainables.core.errors import UserError
from trainables.spec.trial import TrialSpec
from trainables.training import compilation
from trainables.training.resolve import resolve
from trainables.training.run import BEST, Run


def small(compile: str, seed: int = 0) -> TrialSpec:
    return tiny(
        "moco",
        student={"arch": "raykd/mlp", "options": {"side": 8, "hidden": [16]}},
        data={"image_size": 8},
        probe={"record": ()},
        optim={"compile": compile},
        epochs=2,
        seed=seed,
    )


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Nothing compiled before; the name of the backend can be set."""
    settings = torch._dynamo.config.recompile_limit, torch._dynamo.config.suppress_errors
    compilation._has_compiler.cache_clear()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield monkeypatch
    torch._dynamo.config.recompile_limit, torch._dynamo.config.suppress_errors = settings
    compilation._has_compiler.cache_clear()
    torch._dynamo.reset()


def graphs() -> int:
    """How many pieces of code were compiled so far."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def test_a_compiled_trial_is_the_same_but_for_its_name(backend: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend.setattr(compilation, "_BACKEND", "eager")
    plain, compiled = (workspace(tmp_path, name) for name in ("off", "on"))
    expected = run(small("off"), plain).timeless()
    assert graphs() == 0
    assert run(small("on"), compiled).timeless() == expected
    first = graphs()
    assert first > 1  # the trial function, the student, its momentum encoder
    ours, theirs = final(compiled), final(plain)
    assert ours.pop("/trial") != theirs.pop("/trial")
    assert_same_bits(ours, theirs)
    best = [load_file(place.folder / BEST) for place in (compiled, plain)]
    assert_same_bits(*best)

    run(small("on", seed=1), workspace(tmp_path, "later"))
    assert graphs() == first  # a later trial of the lane finds what was compiled


def test_where_nothing_can_be_compiled_nothing_is(backend: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend.setattr(compilation, "_BACKEND", "a compiler that is not there")
    assert not Run(small("on"), workspace(tmp_path, "on")).compiled
    assert graphs() == 0


def test_by_default_a_cpu_compiles_nothing(backend: pytest.MonkeyPatch, tmp_path: Path) -> None:
    backend.setattr(compilation, "_BACKEND", "eager")
    assert not Run(small("auto"), workspace(tmp_path)).compiled


def test_it_is_part_of_a_trials_name_where_it_is_asked_for() -> None:
    names = {setting: small(setting).signature() for setting in ("auto", "off", "on")}
    assert len(set(names.values())) == 3
    without = small("auto").model_dump(mode="json")
    del without["optim"]["compile"]
    assert TrialSpec.model_validate(without).signature() == names["auto"]
    with pytest.raises(UserError, match=r"optim\.compile: no such choice.*auto, off, on"):
        resolve({**small("auto").model_dump(mode="json"), "optim": {"compile": "yes"}})
