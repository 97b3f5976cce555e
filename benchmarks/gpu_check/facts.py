"""Stage: the facts about card and software, and what the card was measured to do."""

import time
from statistics import median

import torch

from dynalign.benchmarks.floating_point import finish, product_operations_per_s
from dynalign.benchmarks.gpu_check.actor_memory import nvidia_smi
from dynalign.benchmarks.gpu_check.site import Site
from dynalign.benchmarks.host import this_host

_CARD = ("name", "driver_version", "memory.total", "memory.free", "power.limit", "mig.mode.current")
_COPIED_MIB = {"cpu": 64, "gpu": 1024}
_RUNS = 5


def measure(site: Site) -> None:
    host = this_host()
    site.figure(
        cpu=host.cpu,
        cores=host.cores,
        host_memory_gib=host.memory_gib,
        system=host.system,
        python=host.python,
        load_average=host.load_average,
        **{f"version_{name.replace('-', '_')}": version for name, version in host.packages.items()},
    )
    site.figure(**card_facts(nvidia_smi(f"--query-gpu={','.join(_CARD)}")))
    if site.device == "gpu":
        site.figure(
            gpus=torch.cuda.device_count(),
            torch_cuda=torch.version.cuda or "",
            compute_capability=".".join(map(str, torch.cuda.get_device_capability())),
            torch_sees_gpu=str(torch.cuda.is_available()),
        )
    device = torch.device("cuda", 0) if site.device == "gpu" else torch.device("cpu")
    site.figure(product_tflops=product_operations_per_s(device, site.device == "cpu") / 1e12)
    size_bytes = _COPIED_MIB[site.device] * 2**20
    source = torch.ones(size_bytes, dtype=torch.uint8)
    on_device = source.to(device)
    target = torch.empty_like(on_device)
    site.figure(
        copy_on_device_gb_per_s=_copied(target, on_device, device),
        copy_from_host_gb_per_s=_copied(target, source, device),
        copy_to_host_gb_per_s=_copied(source, on_device, device),
    )


def card_facts(lines: list[str]) -> dict[str, str]:
    """What the driver says of each card: `card_0_name`, `card_0_driver_version`, …"""
    return {
        f"card_{index}_{name.replace('.', '_')}": cell.strip()
        for index, line in enumerate(lines)
        for name, cell in zip(_CARD, line.split(","), strict=True)
    }


def _copied(target: torch.Tensor, source: torch.Tensor, device: torch.device) -> float:
    """Gigabytes that are copied in a second, median of several copies. Host memory is not pinned, as the
    weights of a run are not."""

    def copy_s() -> float:
        finish(device)
        started_s = time.perf_counter()
        target.copy_(source)
        finish(device)
        return time.perf_counter() - started_s

    copy_s()
    return source.numel() / 1e9 / median(copy_s() for _ in range(_RUNS))
