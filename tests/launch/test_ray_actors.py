"""What the actors of a run find in their environment, over real Ray."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch

from dynalign.launch.ray_actors import KEEPS_PAGES, actor

TENSOR_ELEMENTS = 16_000_000
"""Of float32: twice the size from which on glibc by default asks the kernel for every block."""

ROUNDS = 20


class Probe:
    """Looks at the process that it is in."""

    def environment(self) -> dict[str, str]:
        """As it was when the process began, which is when glibc reads it."""
        lines = Path("/proc/self/environ").read_text().split("\0")
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def page_faults(self) -> int:
        """Minor faults of a thread that makes and drops float32 tensors, as a training step does.

        They are counted once it has done so for a while.
        """
        faults: list[int] = []

        def work() -> None:
            _make_and_drop()
            before = _minor_faults()
            _make_and_drop()
            faults.append(_minor_faults() - before)

        thread = threading.Thread(target=work)  # the learner's step is no main thread's either
        thread.start()
        thread.join()
        return faults[0]


def _make_and_drop() -> None:
    for _ in range(ROUNDS):
        torch.zeros(TENSOR_ELEMENTS)


def _minor_faults() -> int:
    return int(Path("/proc/thread-self/stat").read_text().rsplit(")", 1)[1].split()[7])


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_an_actor_has_the_threads_it_was_given_before_any_library_is_loaded(local_ray: None) -> None:
    environment = ray.get(actor(Probe, 2).remote().environment.remote(), timeout=60)
    assert environment["OMP_NUM_THREADS"] == "2"


def test_a_learner_on_a_cpu_does_not_give_its_pages_back(local_ray: None) -> None:
    kept, plain = (actor(Probe, 0, 0.0, more).remote() for more in (KEEPS_PAGES, {}))
    faults_kept, faults_plain = ray.get([probe.page_faults.remote() for probe in (kept, plain)], timeout=60)
    assert (
        faults_plain > 1000 * ROUNDS
    )  # a tensor has 15,625 pages, of which the kernel may map several at once
    assert faults_kept < 1000
