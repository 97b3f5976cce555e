"""The learner as the only rank, in this process: sets the environment as its actor does, and imports it."""

import contextlib
import os
import socket


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rank_environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    rendezvous = {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return rendezvous | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}


if "RANK" not in os.environ:
    os.environ.update(rank_environment(0, 1, free_port()))

from dynalign.learner.learner import Learner  # noqa: E402  it imports DeepSpeed, which reads the environment

__all__ = ["Learner"]
