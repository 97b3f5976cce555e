"""A version sent by broadcast in host memory: epochs, latecomers, dead members, wrong bytes."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from dynalign.configs.errors import TransferFailed, WeightsError
from dynalign.learner.weights import Staging, make_version, stage_version
from dynalign.rollout.weights.broadcast import Receiver, Root, ready
from dynalign.rollout.weights.incoming import IncomingWeights
from dynalign.rollout.weights.source import BroadcastMember, described
from dynalign.rollout.weights.version import Manifest, device_checksum

CPU = torch.device("cpu")
DEADLINE_S, GATHER_S = 1.5, 0.5
LONG_S = 60.0
"""A deadline that a busy machine does not reach by itself: what ends well before it has not waited for it."""


@pytest.fixture
def root() -> Iterator[Root]:
    root = Root("127.0.0.1", DEADLINE_S, GATHER_S)
    yield root
    root.settle()


def tensors(step: int) -> list[tuple[str, Tensor]]:
    draw = torch.Generator().manual_seed(step)
    return [(f"layer.{index}", torch.randn(20 + index, 7, generator=draw)) for index in range(6)]


def version(staging: Staging, step: int) -> Manifest:
    return stage_version(staging, tensors(step), 1, step, "float32", 1 << 10)


def at(root: Root, label: str, name: str, ranks: int = 1) -> BroadcastMember:
    return ready(root.address, root.port, label, name, ranks, DEADLINE_S)


def all_at(root: Root, label: str, *names: str) -> list[BroadcastMember]:
    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(lambda name: at(root, label, name), names))


def take(incoming: IncomingWeights, member: BroadcastMember, manifest: Manifest) -> dict[str, Tensor]:
    """What an engine's process does."""
    incoming.prepare(described(member), manifest.pack())
    taken = {name: tensor.clone() for name, tensor in incoming.tensors()}
    incoming.close()
    return taken


def same(taken: dict[str, Tensor], step: int) -> bool:
    return list(taken) == [name for name, _ in tensors(step)] and all(
        torch.equal(taken[name], tensor) for name, tensor in tensors(step)
    )


def test_every_member_gets_every_tensor_and_keeps_its_group_for_the_next_version(root: Root) -> None:
    staging, engines = Staging(CPU), {name: IncomingWeights(CPU, 0) for name in "abc"}
    groups, took_s = set(), []
    for step in (1, 2, 3, 4, 5):
        root.settle()
        manifest = version(staging, step)
        assert len(manifest.buckets) > 2
        started_s = time.monotonic()
        root.send(f"1.{step}", staging.buckets)
        members = all_at(root, f"1.{step}", *engines)
        with ThreadPoolExecutor(3) as pool:
            taken = list(pool.map(take, engines.values(), members, [manifest] * 3))
        assert all(same(each, step) for each in taken)
        took_s.append(time.monotonic() - started_s)
        groups |= {member.group for member in members}
    assert len(groups) == 1
    assert took_s[0] >= GATHER_S
    assert min(took_s[1:]) < GATHER_S, "no wait by the clock for members that are known"


def test_an_engine_in_two_processes_has_two_ranks(root: Root) -> None:
    staging = Staging(CPU)
    manifest = version(staging, 1)
    root.send("1.1", staging.buckets)
    member = at(root, "1.1", "a", ranks=2)
    assert (member.first_rank, member.world_size) == (1, 3)
    with ThreadPoolExecutor(2) as pool:
        taken = pool.map(lambda part: take(IncomingWeights(CPU, part), member, manifest), (0, 1))
        assert all(same(each, 1) for each in taken)


def test_a_latecomer_is_refused_at_once(root: Root) -> None:
    staging = Staging(CPU)
    manifest = version(staging, 1)
    root.send("1.1", staging.buckets)
    assert same(take(IncomingWeights(CPU, 0), at(root, "1.1", "a"), manifest), 1)
    for settled in (False, True):
        if settled:
            root.settle()
        started_s = time.monotonic()
        with pytest.raises(TransferFailed, match="b is late"):
            ready(root.address, root.port, "1.1", "b", 1, LONG_S)
        assert time.monotonic() - started_s < LONG_S / 2


def test_a_member_that_dies_before_it_joins_costs_the_others_only_time(root: Root) -> None:
    staging = Staging(CPU)
    manifest = version(staging, 1)
    root.send("1.1", staging.buckets)
    member, _ = all_at(root, "1.1", "a", "dead")
    survivor = IncomingWeights(CPU, 0)
    with pytest.raises(TransferFailed, match="another member"):
        survivor.prepare(described(member), manifest.pack())
    root.settle()
    manifest = version(staging, 2)
    root.send("1.2", staging.buckets)
    assert same(take(survivor, at(root, "1.2", "a"), manifest), 2)


def test_a_member_that_dies_under_the_broadcast_ends_it_for_all_within_the_deadline(root: Root) -> None:
    staging = Staging(CPU)
    manifest = version(staging, 1)
    root.send("1.1", staging.buckets)
    members = all_at(root, "1.1", "a", "dead")
    incoming, dead = IncomingWeights(CPU, 0), Receiver(CPU)

    def die() -> None:
        dead.join(members[1], 0)
        dead.drop()

    thread = threading.Thread(target=die)
    thread.start()
    started_s = time.monotonic()
    incoming.prepare(described(members[0]), manifest.pack())
    thread.join()
    with pytest.raises(RuntimeError):  # half of it may be written, so any error ends the engine
        list(incoming.tensors())
    root.settle()
    assert time.monotonic() - started_s < 4 * DEADLINE_S
    manifest = version(staging, 2)
    root.send("1.2", staging.buckets)
    replacement, member = IncomingWeights(CPU, 0), at(root, "1.2", "a.2")
    assert member.group != members[0].group
    assert same(take(replacement, member, manifest), 2)


def test_a_version_that_nobody_asks_for_holds_up_nothing_and_costs_no_group() -> None:
    root = Root("127.0.0.1", LONG_S, GATHER_S)
    staging, incoming, groups = Staging(CPU), IncomingWeights(CPU, 0), []
    for step in (1, 2, 3):
        manifest = version(staging, step)
        root.send(f"1.{step}", staging.buckets)
        if step != 2:
            member = at(root, f"1.{step}", "a")
            assert same(take(incoming, member, manifest), step)
            groups.append(member.group)
        started_s = time.monotonic()
        assert root.settle()
        assert time.monotonic() - started_s < LONG_S / 2
    assert len(set(groups)) == 1


def test_a_root_that_is_gone_is_a_failed_transfer(root: Root) -> None:
    with pytest.raises(TransferFailed, match="no word from the learner"):
        ready("127.0.0.1", root.port, "1.9", "a", 1, 0.3)


def test_bytes_that_are_not_those_of_the_manifest_are_refused_before_they_are_used(root: Root) -> None:
    staging = Staging(CPU)
    manifest = version(staging, 1)
    staging.kept[1][100] ^= 1
    root.send("1.1", staging.buckets)
    incoming = IncomingWeights(CPU, 0)
    incoming.prepare(described(at(root, "1.1", "a")), manifest.pack())
    taken: dict[str, Tensor] = {}
    with pytest.raises(WeightsError, match="bucket 1 does not match"):
        taken.update(incoming.tensors())


def test_a_staged_version_is_the_version_bucket_by_bucket_and_so_is_its_copy_on_the_host() -> None:
    staging = Staging(CPU)
    for step in (1, 2):
        plain, arrays = make_version(tensors(step), 1, step, "bfloat16", 1 << 10)
        manifest = stage_version(staging, tensors(step), 1, step, "bfloat16", 1 << 10)
        assert manifest.tensors == plain.tensors
        assert [bytes(bucket.numpy()) for bucket in staging.buckets] == [array.tobytes() for array in arrays]
        copied, copies = staging.on_host()
        assert [bucket.checksum for bucket in copied.buckets] == [bucket.checksum for bucket in plain.buckets]
        assert [copy.tobytes() for copy in copies] == [array.tobytes() for array in arrays]
        assert {bucket.device_checksum for bucket in copied.buckets} == {
            device_checksum(bucket) for bucket in staging.buckets
        }
    before = [bucket.data_ptr() for bucket in staging.kept]
    stage_version(staging, tensors(3), 1, 3, "bfloat16", 1 << 10)
    addresses = [bucket.data_ptr() for bucket in staging.kept]
    assert addresses == before, "another process reads at these addresses"
    with pytest.raises(WeightsError, match="tensors have changed"):
        stage_version(staging, [("x", torch.zeros(10_000))], 1, 4, "bfloat16", 1 << 10)


def test_the_sums_on_the_device_notice_a_bit_and_a_swap_in_any_slice() -> None:
    draw = torch.Generator().manual_seed(0)
    bucket = torch.randint(0, 256, ((1 << 25) + 64,), dtype=torch.uint8, generator=draw)
    right = device_checksum(bucket)
    for position in (0, 7, 1 << 24, len(bucket) - 1):
        bucket[position] ^= 128
        assert device_checksum(bucket) != right
        bucket[position] ^= 128
    words = bucket.view(torch.int64)
    words[[5, -2]] = words[[-2, 5]]
    assert device_checksum(bucket) != right
