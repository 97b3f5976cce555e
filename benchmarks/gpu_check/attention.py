"""Stage: the two forms of the learner's attention, on one row of the 1.7B model.

    sdpa     a call for each prompt and completion, the default
    varlen   one call of flash attention for the row (`learner.attention=varlen`)

Right or wrong: each form's error in one layer, against plain products in float32; then log-probabilities and
gradients of the whole model, against each other. Fast or slow: forward and backward pass of the row, its MFU,
and the share of it in which the device waits for the host. A dry run has the plain products in the place of
flash attention.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from dynalign.benchmarks.floating_point import finish, product_operations_per_s, step_operations
from dynalign.benchmarks.gpu_check.made_groups import made_groups
from dynalign.benchmarks.gpu_check.random_models import random_model
from dynalign.benchmarks.gpu_check.reference import WRONG_NATS, torch_device
from dynalign.benchmarks.gpu_check.runs import overrides, settings_of
from dynalign.benchmarks.gpu_check.site import Site, require
from dynalign.benchmarks.workload import Device
from dynalign.configs.schema import RunSettings
from dynalign.launch.models.shape import ModelShape, read_shape
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.learner.loss import RowLoss
from dynalign.learner.policy import Policy, load_policy
from dynalign.learner.rows.rows import Row, build_rows, plan_rows
from dynalign.learner.rows.varlen import VarlenKernel, torch_kernel
from dynalign.learner.rows.varlen_probe import checked_kernel, varlen_deviations, wrong_of
from dynalign.learner.rows.varlen_reference import reference_varlen

MFU_AIM = "≥ 0.40"
HOST_AIM = "≤ 0.10"
ROW_TOKENS: dict[Device, int] = {"gpu": 8192, "cpu": 384}
"""Of the row that the aims are set for, and of a small one."""
_GROUPS = 2
_PROMPT_SHARE = 24
"""A prompt is this part of the row: 341 tokens of 8,192."""
_WINDOW_SHARE = 32
"""A sliding window is this part of the row: less than a prompt."""
_PRECISION = torch.bfloat16
_RUNS: dict[Device, int] = {"gpu": 5, "cpu": 1}
SAME_GRADIENT = 0.05
"""Largest relative difference of the gradients' norms: two kernels in bfloat16 round otherwise."""


def measure(site: Site) -> None:
    measure_with(site, torch_kernel if site.device == "gpu" else lambda: reference_varlen)


def measure_with(site: Site, made: Callable[[], VarlenKernel]) -> None:
    """With the kernel that `made` returns. The default is timed before it, so that its figures are there
    whatever the kernel does, and again beside it."""
    device = torch_device(site.device)
    folder = random_model(site, "1.7B")
    tokens = ROW_TOKENS[site.device]
    settings = settings_of(overrides(site, folder, f"learner.token_budget={tokens}"))
    torch.set_num_threads(settings.learner.threads)
    shape = read_shape(folder)
    row = made_row(
        settings, made_groups(folder, *made_of(tokens, settings.rollout.group_size)), shape.vocabulary
    )
    site.figure(row_tokens=len(row.input_ids_S), completions=sum(len(parts) - 1 for parts in row.layout))
    policy = load_policy(folder, settings.learner, _PRECISION, settings.seed, probed=False).to(device)
    passes = Passes(policy, row, settings, device)
    operations = step_operations(shape, [row])
    _speeds(site, passes, {"sdpa": None}, operations)
    kernel = checked_kernel(device, _PRECISION, made)
    for window in (None, tokens // _WINDOW_SHARE):
        _one_layer(site, kernel, shape, row, window)
    _same_model(site, passes, kernel)
    walls_s = _speeds(site, passes, {"sdpa": None, "varlen": kernel}, operations)
    site.figure(varlen_vs_sdpa=walls_s["sdpa"] / walls_s["varlen"])


def made_of(row_tokens: int, candidates: int) -> tuple[int, int, list[int]]:
    """Groups, tokens of a prompt, and of each completion of a group: together they fill a row. The longest
    completion is four times the shortest one."""
    prompt = row_tokens // _PROMPT_SHARE
    mean = (row_tokens // _GROUPS - prompt) / candidates
    completions = [int(mean * (0.4 + 1.2 * index / (candidates - 1))) for index in range(candidates)]
    return _GROUPS, prompt, completions


def made_row(settings: RunSettings, groups: bytes, vocabulary: int) -> Row:
    """The one row that the learner makes of these groups. Raises ValueError if it makes more."""
    decoded = decode_groups([groups], ["made"], settings.rollout.group_size, vocabulary)
    batch = TrainingBatch.of(decoded, settings.algorithm.advantage_scale)
    plan = plan_rows(batch, range(len(batch.groups_P)), settings, 1)
    (row,) = build_rows(plan, 0, settings.learner.logprob_chunk_tokens)
    return row


class Passes:
    """Forward and backward passes of one row, as the learner makes them; gradients add up."""

    def __init__(self, policy: Policy, row: Row, settings: RunSettings, device: torch.device) -> None:
        arrays = (row.input_ids_S, row.position_ids_S, row.predicting_T, row.targets_T)
        ids_S, positions_S, predicting_T, targets_T = (torch.from_numpy(each).to(device) for each in arrays)
        self._inputs = (ids_S, positions_S, row.layout, predicting_T, targets_T, row.chunks)
        advantages_T, weights_T = (
            torch.from_numpy(each).to(device) for each in (row.advantages_T, row.weights_T)
        )
        algorithm = settings.algorithm
        self._loss = RowLoss(advantages_T, weights_T, algorithm.clip_low, algorithm.clip_high)
        self.policy = policy
        self.device = device

    def once(self, kernel: VarlenKernel | None) -> Tensor:
        """One pass; returns logprobs_T. It does not wait for the device."""
        self.policy.kernel = kernel
        value, logprobs_T, _ = self.policy(*self._inputs, self._loss)
        value.backward()
        return logprobs_T  # type: ignore[no-any-return]

    def gradients(self, kernel: VarlenKernel | None) -> tuple[Tensor, list[Tensor]]:
        """logprobs_T, and the gradient of each parameter, of one pass alone."""
        self.policy.zero_grad()
        logprobs_T = self.once(kernel)
        found = [each.grad for each in self.policy.parameters() if each.grad is not None]
        self.policy.zero_grad()  # the tensors stay, the parameters let go of them
        return logprobs_T, found

    def wall_s(self, kernel: VarlenKernel | None) -> float:
        """How long a pass takes."""
        finish(self.device)
        started_s = time.perf_counter()
        self.once(kernel)
        finish(self.device)
        return time.perf_counter() - started_s

    def busy_s(self, kernel: VarlenKernel | None) -> float:
        """How long the device computes in a pass, by the profiler; on a CPU how long torch's operations do. 0
        where the profiler may not see the device."""
        on_gpu = self.device.type == "cuda"
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiled:
            self.once(kernel)
            finish(self.device)
        events = profiled.key_averages()
        if not on_gpu:
            return float(sum(event.self_cpu_time_total for event in events)) / 1e6
        seen = [each for each in events if each.device_type.name == "CUDA" and not each.is_user_annotation]
        return float(sum(event.self_device_time_total for event in seen)) / 1e6


def _one_layer(site: Site, kernel: VarlenKernel, shape: ModelShape, row: Row, window: int | None) -> None:
    """Requires of one layer of the model's shape, on the row's own layout, that the one call is right."""
    heads = (shape.heads, shape.keys // shape.head, shape.head)
    found = varlen_deviations(kernel, torch_device(site.device), _PRECISION, row.layout, heads, window)
    for name, off in found.items():
        of = name if window is None else f"{name}_window_{window}"
        site.figure(**{f"{of}_off_varlen": off.once, f"{of}_off_sdpa": off.apart})
    wrong = wrong_of(found, _PRECISION)
    require(not wrong, f"one layer, window {window}: {'; '.join(wrong)}")


def _same_model(site: Site, passes: Passes, kernel: VarlenKernel) -> None:
    """Requires of the whole model that both forms are the same function with the same gradient."""
    (one_T, ones), (other_T, others) = (passes.gradients(form) for form in (None, kernel))
    apart_nats = float((one_T - other_T).abs().mean())
    one_norm, other_norm, distance = (
        _norm(each)
        for each in (ones, others, [a.float() - b.float() for a, b in zip(ones, others, strict=True)])
    )
    site.figure(
        logprobs_apart_nats=apart_nats,
        gradient_norms_apart=abs(other_norm / one_norm - 1),
        gradients_apart=distance / one_norm,
    )
    require(apart_nats < WRONG_NATS, f"the two forms differ by {apart_nats:.3f} nats a token")
    norms = f"the gradient's norm is {one_norm:.4g} with sdpa and {other_norm:.4g} with varlen"
    require(abs(other_norm / one_norm - 1) < SAME_GRADIENT, norms)


def _norm(gradients: list[Tensor]) -> float:
    return float(torch.stack([each.float().norm() for each in gradients]).norm())


def _speeds(
    site: Site, passes: Passes, forms: dict[str, VarlenKernel | None], operations: int
) -> dict[str, float]:
    """Keeps the figures of the forms, which take turns; returns the seconds of a pass of each."""
    site.figure(mfu_aim=MFU_AIM, host_share_aim=HOST_AIM)
    full_speed = product_operations_per_s(passes.device, site.device == "cpu")
    walls_s: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(_RUNS[site.device] + 1):
        for name, kernel in forms.items():
            taken_s = passes.wall_s(kernel)
            if turn:  # the first one warms up
                walls_s[name].append(taken_s)
    row_s = {name: median(taken_s) for name, taken_s in walls_s.items()}
    for name, kernel in forms.items():
        site.figure(**{f"{name}_row_s": row_s[name], f"{name}_mfu": operations / row_s[name] / full_speed})
        busy_s = passes.busy_s(kernel)
        if busy_s:
            share = max(0.0, 1 - busy_s / row_s[name])
            site.figure(**{f"{name}_busy_s": busy_s, f"{name}_host_share": share})
    return row_s
