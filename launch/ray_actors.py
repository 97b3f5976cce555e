"""Actors with their processor cores, GPUs and environment, as every command creates them on Ray."""

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import ray

from dynalign.actors.pool.pool_worker import CALLS as POOL_CALLS
from dynalign.actors.pool.pool_worker import PoolWorker, PoolWorkerSpec
from dynalign.actors.pool.protocol import PoolWorkerHandle
from dynalign.actors.run_spec import NAMESPACE
from dynalign.configs.errors import DeadlineExceeded

NAME_S = 60.0
"""Longest wait, in seconds, until Ray has let go of the name of an actor that was ended."""
KEEPS_PAGES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
}
"""Of actors that compute on a CPU. glibc otherwise returns large tensors to the kernel, which clears their
pages anew: an eighth of a training step on a CPU, a twelfth of an engine's. The engine's process inherits the
variables from its worker."""


def environment(device: str) -> Mapping[str, str]:
    """Of the actors that compute, on `cpu` or `gpu`."""
    return KEEPS_PAGES if device == "cpu" else {}


def actor(
    kind: type,
    threads: int = 0,
    gpus: float = 0.0,
    more: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> Any:
    """What creates an actor (`remote`). threads: cores that are reserved for it. gpus: GPUs, or the share of
    one. more: variables of its environment. options: Ray's own."""
    variables = {
        "OMP_NUM_THREADS": str(max(1, threads)),
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "WARNING",
        **more,
    }
    return ray.remote(kind).options(
        num_cpus=threads,
        num_gpus=gpus,
        max_restarts=0,
        max_task_retries=0,
        runtime_env={"env_vars": variables},
        **options,
    )


def named_actor(kind: type, name: str, **options: Any) -> Any:
    """The same of a named actor, once its name is free. options: as of `actor`. Raises DeadlineExceeded."""
    until_s = time.monotonic() + NAME_S
    while True:
        try:
            ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:  # nobody has it
            return actor(kind, name=name, namespace=NAMESPACE, **options)
        if time.monotonic() > until_s:
            raise DeadlineExceeded(f"Ray to end the actor that was {name}", NAME_S)
        time.sleep(0.1)


def pool_engine(spec: PoolWorkerSpec, name: str, device: str) -> PoolWorkerHandle:
    """An engine with fixed weights, which callers find under `name`. device: `cpu` or `gpu`."""
    kind = named_actor(
        PoolWorker,
        name,
        threads=spec.settings.engine_threads,
        gpus=spec.settings.tensor_parallel if device == "gpu" else 0,
        more=environment(device),
        max_concurrency=POOL_CALLS,
    )
    return cast(PoolWorkerHandle, kind.remote(spec))
