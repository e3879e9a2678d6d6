"""Who gets which GPU, and which one is to blame: by what workers are told, see and raise, on no GPU."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from raykd.doctor.compare import check_room
from raykd.lanes import cluster, devices, failures
from raykd.lanes.devices import Gpu, Unusable, allowed, use_gpu
from raykd.lanes.failures import gpu_fault
from raykd.lanes.incidents import Incidents
from raykd.records.history import History
from raykd.runs.changed_spec import refuse_changed_spec
from raykd.runs.plan import devices as devices_of
from raykd.runs.start import plan_search
from raykd.runs.sweep import Place
from raykd.spec.devices import check_gpus, idle_gpus, where
from raykd.spec.search import SearchSpec, find_space, load_sweep
from raykd.spec.sections import WorkersSpec
from raykd.spec.validate import check_resources, validate
from raykd.storage.open_storage import open_sweep
from trainables.__main__ import main as bare
from trainables.core import isolation
from trainables.core import workers as trained_on
from trainables.core.errors import UserError
from trainables.core.workers import device, is_a_peers, on_device

GIB, MIB = 2**30, 2**20
ILLEGAL = (
    "CUDA error: an illegal memory access was encountered\n"
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace "
    "below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)


def node(cpus: float, gpus: float = 0.0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "NodeID": "n", "Resources": {"CPU": cpus, **({"GPU": gpus} if gpus else {})}}


# --- who gets what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "nodes", "gpus", "said"),
    [
        ({}, [node(8)], 0, "each worker on the CPU"),
        ({}, [node(8, 4)], 1, "each worker on a GPU of its own (workers.gpus is left out)"),
        ({}, [node(2), node(8, 1)], 1, "each worker on a GPU of its own (workers.gpus is left out)"),
        ({}, [node(8), node(8, 4, alive=False)], 0, "each worker on the CPU"),
        ({"gpus": 0}, [node(8, 4)], 0, "each worker on the CPU"),
        ({"gpus": 1}, [node(8, 4)], 1, "each worker on a GPU of its own"),
        ({"gpus": 0.25}, [node(8, 4)], 0.25, "each worker on 0.25 of a GPU"),
    ],
)
def test_gpus_left_out_are_one_a_worker_where_there_are_any(
    given: dict[str, Any], nodes: list[dict[str, Any]], gpus: float, said: str
) -> None:
    workers = WorkersSpec(**given)
    assert workers.on(nodes).gpus == gpus
    assert workers.on(nodes).resources == {"CPU": 1, **({"GPU": gpus} if gpus else {})}
    assert where(workers, nodes) == said


def test_nodes_without_gpus_hold_no_lane_beside_those_that_have_some() -> None:
    nodes = [node(16), node(16, 4)]
    assert WorkersSpec().lanes(nodes) == 4
    assert WorkersSpec(gpus=0).lanes(nodes) == 32
    assert WorkersSpec(gpus=0.5).lanes(nodes) == 8
    assert WorkersSpec(count=3).lanes(nodes) == 1
    with pytest.raises(
        UserError, match=r"^workers\.count: .*1 CPUs and 1 GPUs \(workers\.gpus is left out\)"
    ):
        check_resources(WorkersSpec(count=5), nodes)


def test_gpus_that_nobody_uses_are_a_remark() -> None:
    assert idle_gpus(WorkersSpec(gpus=0), [node(8)]) == []
    assert idle_gpus(WorkersSpec(), [node(8, 4)]) == []
    (remark,) = idle_gpus(WorkersSpec(gpus=0), [node(8, 3), node(8, 1)])
    assert remark.startswith("workers.gpus: 0 trains on the CPU") and "the 4 GPUs here stay unused" in remark
    spec = load_sweep("quickstart", ["workers.gpus=0"])
    check = check_room(spec, [node(8, 4)], {"CPU": 8, "GPU": 4}, autoscales=False)
    assert check.ok is None and "4 GPUs here stay unused" in check.said
    left_out = load_sweep("quickstart", ["workers.gpus="])
    check = check_room(left_out, [node(8, 4)], {"CPU": 8, "GPU": 4}, autoscales=False)
    assert check.ok is True and "each worker on a GPU of its own" in check.said


def test_a_worker_of_several_gpus_is_refused_with_what_to_write() -> None:
    for said, path in ((["workers.gpus=2"], "`{count: 2, gpus: 1}`"), (["workers={count: 2, gpus: 4}"], "8")):
        with pytest.raises(UserError, match=r"^workers\.gpus: a worker trains on one GPU") as refused:
            validate(load_sweep("quickstart", said))
        assert path in str(refused.value)
    old = WorkersSpec.model_validate({"gpus": 2.0})  # of a ledger: it goes on as it was
    assert old.lanes([node(8, 4)]) == 2 and "trains on one" in idle_gpus(old, [node(8, 4)])[0]
    with pytest.raises(UserError):
        check_gpus(old)


def test_a_trial_is_the_same_whatever_it_is_trained_on() -> None:
    trials = {
        load_sweep("quickstart", [f"workers.gpus={gpus}"]).trial({}, 0).signature()
        for gpus in ("", 0, 0.5, 1)
    }
    assert len(trials) == 1


@pytest.mark.parametrize(
    ("sets", "gpus", "said", "remark"),
    [
        ([], 2, "each worker on a GPU of its own (workers.gpus is left out)", ""),
        ([], 0, "each worker on the CPU", ""),
        (["workers.gpus=0"], 2, "each worker on the CPU", "the 2 GPUs here stay unused"),
        (["workers.gpus=1"], 0, "each worker on a GPU of its own", "cannot run on this machine"),
    ],
)
def test_a_plan_says_what_workers_train_on(
    sets: list[str], gpus: int, said: str, remark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "this_machine", lambda: node(8, gpus))
    told, remarks = devices_of(load_sweep("quickstart", sets), cluster.LOCAL)
    assert told == said and (remark in remarks[0] if remark else not remarks)
    told, remarks = devices_of(load_sweep("quickstart"), "10.0.0.1:6379")
    assert told == "each worker on a GPU of its own if the cluster has GPUs, else on the CPU" and not remarks


@pytest.mark.parametrize(
    ("space", "sets", "memory", "field"),
    [
        ("rkd", ["optim.batch_size=512"], 2 * GIB, "optim.batch_size"),
        ("rrkd", ["axes.anchors=", "fixed.anchors=per_class", "fixed.anchors_per_class=50"], 2 * GIB,
         "config.anchors_per_class"),
        ("compress", ["axes.queue_size=", "fixed.queue_size=896"], MIB, "fixed.queue_size"),
    ],
)  # fmt: skip
def test_a_plan_refuses_what_takes_more_memory_than_the_gpu_has(
    space: str, sets: list[str], memory: int, field: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What each worker has follows from the GPU that torch sees and from the workers' share of it."""
    monkeypatch.setattr(cluster, "this_machine", lambda: node(8, 1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu = type("P", (), {"total_memory": 2 * memory})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda where: gpu)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda where: 1.0, raising=False)
    real = ["data.image_size=224", "student={arch: resnet18}", "workers.gpus=0.5", "samples=1", "baseline="]
    spec = load_sweep(space, [*real, *sets])
    with pytest.raises(UserError) as refused:
        plan_search(spec, Place(open_sweep(tmp_path / spec.name), cluster.LOCAL))
    assert refused.value.field in (field, field.replace("config.", "fixed.")), str(refused.value)
    said = str(refused.value)
    assert re.search(r"would take [\d.]+ [GM]iB on each worker, and each worker has [12]\.0 .iB", said), said
    assert re.search(r"at most \d+", said), said


def test_an_old_ledger_in_which_gpus_are_0_goes_on_as_it_was(tmp_path: Path) -> None:
    """An older raykd wrote 0 where the file said nothing; the file says nothing still."""
    file = tmp_path / "space.yaml"
    file.write_text(find_space("quickstart").read_text())
    head = load_sweep(file).model_dump(mode="json")
    head["workers"]["gpus"] = 0.0
    then = SearchSpec.model_validate(head)
    source = {"path": str(file), "overrides": []}
    record: Any = {"kind": "sweep", "time": 0.0, "spec": head, "source": source}
    refuse_changed_spec(then, History.of([record]), tmp_path)
    assert then.workers.on([node(8, 4)]).gpus == 0, "it trained without, and goes on so"
    file.write_text(file.read_text().replace("workers: {count: 1", "workers: {gpus: 1, count: 1"))
    with pytest.raises(UserError, match=r"workers\.gpus: 0\.0 -> 1\.0"):
        refuse_changed_spec(then, History.of([record]), tmp_path)


def test_a_trial_by_itself_says_what_it_trains_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained_on, "_given", [])
    file = tmp_path / "trial.yaml"
    file.write_text("method: none at all")
    arguments = [str(file), "--folder", str(tmp_path / "trial")]
    assert bare([*arguments, "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith("training on the CPU\nerror: method: no such method")
    assert bare([*arguments, "--device", "cuda:1"]) == 2
    said = capsys.readouterr().err
    assert "--device: no such device: torch sees no GPU here (got 'cuda:1')" in said and "cpu" in said
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda where: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: f"a card, {where}")
    for asked, said in (("auto", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "the CPU")):
        assert bare([*arguments, "--device", asked]) == 2
        assert capsys.readouterr().err.startswith(f"training on {said}")
    assert bare([*arguments, "--device", "cuda:2"]) == 2
    assert "Did you mean 'cuda:" in capsys.readouterr().err


# --- what a worker does with it ---------------------------------------------------------------------------


@pytest.fixture
def free_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this test sets is set for it alone."""
    monkeypatch.setattr(trained_on, "_given", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")


@pytest.fixture
def cuda(free_device: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two GPUs of 80 GiB, as far as torch says; a computation on them is one on the CPU."""
    told: dict[str, Any] = {"free": 80 * GIB, "reserved": 0}
    ones = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda where: told.update(device=where))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (told["free"], 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: told["reserved"])
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda where: told["reserved"])
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda where: type("P", (), {"total_memory": 80 * GIB})
    )
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda part, where: told.update(part=part)
    )
    monkeypatch.setattr(torch, "ones", lambda *shape, device=None: ones(*shape))
    monkeypatch.setattr("ray.train.torch.get_device", lambda: torch.device("cuda:1"))
    return told


GPU = Gpu("node", "7", "host")


def test_a_worker_without_a_gpu_trains_on_the_cpu_whatever_torch_sees(
    cuda: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert device() == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: pytest.fail("a context on a GPU of others"))
    use_gpu(None, 0.0)
    assert device() == torch.device("cpu")
    assert devices.os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert "cuda" not in isolation.rng_state()


def test_a_worker_trains_on_the_gpu_that_it_was_given(cuda: dict[str, Any]) -> None:
    use_gpu(GPU, 1.0)
    assert device() == cuda["device"] == torch.device("cuda", 1)
    assert "part" not in cuda, "a whole GPU needs no limit"
    with on_device(torch.device("cpu")):
        assert device() == torch.device("cpu")
    assert device() == torch.device("cuda", 1)


@pytest.mark.parametrize("share", [0.5, 1 / 3, 0.25, 0.1])
def test_workers_that_share_a_gpu_fit_beside_each_other(cuda: dict[str, Any], share: float) -> None:
    use_gpu(GPU, share)
    together = int(1 / share + 1e-6) * (cuda["part"] * 80 * GIB + devices.CONTEXT)
    assert 0.9 * 80 * GIB < together <= 80 * GIB * 1.000001
    assert 0 < allowed(share, 2 * GIB) <= share * 2 * GIB, "a small device, too"


def test_a_gpu_that_torch_cannot_use_is_said_to_be_so(
    cuda: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nand advice")

    monkeypatch.setattr(torch, "ones", lost)
    with pytest.raises(Unusable, match=r"busy or unavailable$") as once:
        use_gpu(GPU, 1.0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(Unusable, match="torch sees no GPU there") as never:
        use_gpu(GPU, 1.0)
    assert (once.value.certain, never.value.certain) == (False, True)


# --- whose error it is ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        ILLEGAL,
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: unspecified launch failure",
        "CUDA error: misaligned address",
        "CUDA error: the launch timed out and was terminated",
        "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA error: unknown error",
        "CUDA driver error: unknown error",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        "cuFFT error: CUFFT_EXEC_FAILED",
        "NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled cuda error\nLast error:\nCuda failure 700 "
        "'an illegal memory access was encountered'",
    ],
)
def test_the_machine_s_errors_are_the_machine_s(said: str) -> None:
    assert gpu_fault(RuntimeError(said), 1.0) == f"RuntimeError: {said.splitlines()[0]}"
    assert gpu_fault(torch.distributed.DistBackendError(said), 1.0)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later"),
        RuntimeError("CUDA error: invalid argument"),
        RuntimeError("CUDA error: invalid configuration argument"),
        RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"),
        RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasGemmEx`"),
        RuntimeError("Expected all tensors to be on the same device, but found at least two devices, cuda:0"),
        RuntimeError("NCCL error: remote process exited or there was a network error, NCCL version 2.21"),
        RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer"),
        ValueError("CUDA error: unknown error"),
        ZeroDivisionError("a bug"),
    ],
)
def test_a_program_s_errors_are_not(error: Exception) -> None:
    assert gpu_fault(error, 1.0) is None


def test_a_library_s_error_after_a_failed_assertion_is_the_program_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels out of range: cuBLAS is often the first to say something."""
    after = RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")

    class Stream:
        def query(self) -> bool:
            raise RuntimeError("CUDA error: device-side assert triggered\nadvice")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    assert gpu_fault(after, 1.0) is None
    Stream.query = lambda self: True  # type: ignore[method-assign]
    assert gpu_fault(after, 1.0)


def test_what_another_worker_raised_is_not_this_one_s_gpu_s() -> None:
    error = trained_on._from_a_peer(RuntimeError(ILLEGAL))
    assert is_a_peers(error) and gpu_fault(error, 1.0) is None
    assert failures.mended_by_restart(error), "the group starts again without blaming this GPU"


OOM = "CUDA out of memory. Tried to allocate {}. GPU 0 has a total capacity of 80.00 GiB of which 0 is free."


@pytest.mark.parametrize(
    ("share", "reserved", "asked", "free", "others"),
    [
        (1.0, 78, "4.00 GiB", 1, None),  # its own size
        (1.0, 10, "4.00 GiB", 1, "69.0"),  # somebody else's
        (0.5, 38, "4.00 GiB", 1, None),  # more than its part
        (0.5, 20, "4.00 GiB", 1, "59.0"),  # less than its part
        (1.0, 10, "90.00 GiB", 60, None),  # more than the device has
        (1.0, 79, "512.00 MiB", 0, None),
    ],
)
def test_memory_that_others_hold_is_no_fault_of_the_trial(
    cuda: dict[str, Any], share: float, reserved: int, asked: str, free: int, others: str | None
) -> None:
    use_gpu(GPU, share)
    cuda.update(reserved=reserved * GIB, free=free * GIB)
    said = gpu_fault(torch.OutOfMemoryError(OOM.format(asked)), share)
    assert said == (None if others is None else f"other processes hold {others} of its 80.0 GiB")


@pytest.mark.parametrize(("allocated", "kept", "others"), [(70, 8, None), (9, 1, "62.0")])
def test_what_a_trial_held_counts_although_it_has_given_it_back(
    cuda: dict[str, Any], allocated: int, kept: int, others: str | None
) -> None:
    """`isolated` has emptied torch's cache by the time that the error is looked at."""
    use_gpu(GPU, 1.0)
    cuda.update(reserved=0, free=18 * GIB)
    held = (
        f" Including non-PyTorch memory, this process has 79.13 GiB memory in use. Of the allocated memory "
        f"{allocated}.00 GiB is allocated by PyTorch, and {kept}.00 GiB is reserved by PyTorch."
    )
    said = gpu_fault(torch.OutOfMemoryError(OOM.format("4.00 GiB") + held), 1.0)
    assert said == (None if others is None else f"other processes hold {others} of its 80.0 GiB")


def test_a_worker_that_is_alone_may_take_what_its_idle_neighbours_leave(cuda: dict[str, Any]) -> None:
    use_gpu(GPU, 0.25)
    devices.limit_memory(0.25, alone=4)
    assert cuda["part"] * 80 * GIB == pytest.approx(80 * GIB - 4 * devices.CONTEXT)
    cuda.update(reserved=70 * GIB, free=7 * GIB)
    error = torch.OutOfMemoryError(OOM.format("12.00 GiB"))
    assert gpu_fault(error, 0.25, alone=4) is None, "it asked for more than there is"
    assert gpu_fault(torch.OutOfMemoryError(OOM.format("2.00 GiB")), 0.25, alone=4), "another program has it"
    devices.limit_memory(0.25)
    assert cuda["part"] * 80 * GIB == pytest.approx(20 * GIB - devices.CONTEXT)


def test_only_a_gpu_s_memory_that_is_shared_is_tried_alone() -> None:
    gone = torch.OutOfMemoryError(OOM.format("4.00 GiB"))
    assert failures.beside_others(gone, 0.5)
    assert failures.beside_others(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), 0.5)
    assert failures.beside_others(trained_on._from_a_peer(gone), 0.5), "another rank of its group"
    assert not failures.beside_others(gone, 1.0) and not failures.beside_others(gone, 0.0)
    assert not failures.beside_others(MemoryError(), 0.5)
    assert not failures.beside_others(RuntimeError(ILLEGAL), 0.5)
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert not failures.beside_others(caught.value, 0.5), "the host's"


def test_memory_of_the_host_is_no_gpu_s() -> None:
    assert gpu_fault(MemoryError(), 1.0) is None
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert gpu_fault(caught.value, 1.0) is None


# --- which GPU is sick ------------------------------------------------------------------------------------


def test_a_gpu_that_fails_twice_is_sick_and_no_other() -> None:
    found = Incidents()
    assert not found.add("a", "t1", "ecc") and not found.add("b", "t2", "once")
    assert found.add("a", "t3", "ecc again")
    assert found.reasons == {"a": "ecc again"} and found.any_of(["b", "a"]) and not found.any_of(["b"])
    assert found.add("c", "", "torch sees none", certain=True)


def test_a_trial_that_fails_on_every_gpu_puts_none_in_quarantine() -> None:
    found = Incidents()
    for trial in ("wild", "wilder"):
        for gpu in "abcd":
            found.add(gpu, trial, "an illegal memory access")
            with contextlib.suppress(KeyError):
                assert gpu not in found.reasons or trial == "wilder"
    assert found.gpus_of("wild") == set("abcd")
    assert set(found.reasons) <= {"a"}, "at most the first, of which it was not known yet"
