"""The learner's memory as an engine's source, without a GPU (test_transport_gpu.py has the rest)."""

from inspect import signature

import msgpack
import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import rebuild_cuda_tensor

from dynalign.configs.errors import WeightsError
from dynalign.learner.weights import Staging, stage_version
from dynalign.rollout.weights.incoming import IncomingWeights
from dynalign.rollout.weights.source import MemoryHandle, described

CPU = torch.device("cpu")
TENSORS = [("a", torch.arange(40.0)), ("b", torch.ones(9)), ("c", torch.randn(20))]


def handle(index: int) -> MemoryHandle:
    return MemoryHandle("GPU-0", 256, bytes([index]), 256, 0, b"counter", 0, b"event", True)


class Learner:
    """Its buckets, found by their handles: here in this process's own memory."""

    def __init__(self) -> None:
        self.staging = Staging(CPU)
        self.manifest = stage_version(self.staging, TENSORS, 1, 1, "float32", 256).pack()
        self.source = described(tuple(handle(index) for index in range(len(self.staging.kept))))

    def open(self, opened: MemoryHandle, device: torch.device) -> Tensor:
        return self.staging.kept[opened.storage_handle[0]]


def test_the_fields_that_travel_are_those_of_torch_s_own_function_in_its_order() -> None:
    names = list(signature(rebuild_cuda_tensor).parameters)
    assert names[7:10] == ["storage_handle", "storage_size_bytes", "storage_offset_bytes"]
    assert names[11:] == ["ref_counter_handle", "ref_counter_offset", "event_handle", "event_sync_required"]


def test_handles_cross_processes_as_plain_values() -> None:
    travelled = msgpack.unpackb(msgpack.packb(described((handle(3),))))
    assert [MemoryHandle(**each) for each in travelled["memory"]] == [handle(3)]


def test_tensors_are_read_where_the_learner_has_them() -> None:
    learner = Learner()
    assert len(learner.staging.kept) > 1
    incoming = IncomingWeights(CPU, 0, learner.open)
    incoming.prepare(learner.source, learner.manifest)
    taken = dict(incoming.tensors())
    assert all(torch.equal(taken[name], tensor) for name, tensor in TENSORS)
    first, last = learner.staging.kept[0], learner.staging.kept[-1]
    assert taken["a"].data_ptr() == first.data_ptr()
    incoming.close()
    used = len(learner.staging.buckets[-1])
    assert last.numel() > used, "the last bucket is not full, and only its used part counts"


def test_memory_that_has_changed_is_noticed_before_the_first_write_and_after_the_last() -> None:
    learner = Learner()
    incoming = IncomingWeights(CPU, 0, learner.open)
    incoming.prepare(learner.source, learner.manifest)
    list(incoming.tensors())
    learner.staging.kept[1][8] ^= 1
    with pytest.raises(WeightsError, match="bucket 1 does not match"):
        incoming.close()
    with pytest.raises(WeightsError, match="bucket 1 does not match"):
        incoming.prepare(learner.source, learner.manifest)


def test_a_version_that_was_not_prepared_cannot_be_loaded() -> None:
    with pytest.raises(WeightsError, match="no version is on its way"):
        list(IncomingWeights(CPU, 0).tensors())
