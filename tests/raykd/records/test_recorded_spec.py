"""A recorded spec is read as the kind of sweep that it is, and recorded again with the keys of both kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from histories import a_sweep
from studies import GAMMA, study

from raykd.records.history import History
from raykd.records.ledger import Ledger
from raykd.records.recorded_spec import spec_of
from raykd.spec.search import SearchSpec, build_sweep
from raykd.spec.study import StudySpec
from raykd.spec.sweep import SweepSpec
from trainables.core.errors import UserError

OLD = Path(__file__).resolve().parents[2] / "fixtures" / "sweeps"
OF_ONE_KIND = ("axes", "points", "arms", "study")


@pytest.mark.parametrize(("name", "kind"), [("finished", SearchSpec), ("study", StudySpec)])
def test_a_ledger_of_before_is_read_as_its_kind(name: str, kind: type[SweepSpec]) -> None:
    history = History.of(Ledger.read(OLD / name))
    spec = spec_of(history)
    assert type(spec) is kind
    recorded = spec.model_dump(mode="json")
    assert recorded.keys() >= history.spec.keys()
    assert {key: recorded[key] for key in OF_ONE_KIND} == {key: history.spec[key] for key in OF_ONE_KIND}


@pytest.mark.parametrize("spec", [a_sweep({"lr": {"log": [1e-4, 1e-2]}}, 2), study(GAMMA)])
def test_an_older_raykd_finds_the_keys_of_both_kinds(spec: SweepSpec) -> None:
    recorded = spec.model_dump(mode="json")
    assert set(OF_ONE_KIND) < recorded.keys()
    again = spec_of(History.of([{"kind": "sweep", "time": 0.0, "spec": recorded}]))
    assert again == spec and again.hash() == spec.hash()


def test_a_search_has_no_arms() -> None:
    search = a_sweep({"lr": {"log": [1e-4, 1e-2]}}, 2)
    recorded = search.model_dump(mode="json")
    assert build_sweep(recorded) == search, "a page shows this as the complete spec, to be run again"
    with pytest.raises(UserError, match="arms: no such field"):
        build_sweep({**recorded, "arms": study(GAMMA).model_dump(mode="json")["arms"]})
