"""What is measured: every figure with its unit and meaning, every ratio as the quotient of two figures'
medians, every job.

A job is one process that measures some figures; `jobs_for` says which ones the chosen ratios need.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dynalign.benchmarks.simulated_runs import FAULTS
from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.refusals import did_you_mean
from dynalign.configs.sections.alarms import AlarmsSettings


@dataclass(frozen=True, slots=True)
class Kind:
    """A figure's unit, and what it says."""

    unit: str
    what: str


@dataclass(frozen=True, slots=True)
class Job:
    """One process that measures some figures."""

    core: int | None
    """Index of the core that it is pinned to where there is no GPU; None: all cores."""
    deadline_s: float
    """Several times what it takes on two cores."""
    after: tuple[str, ...] = ()
    """Jobs whose files it reads."""
    elsewhere: str = ""
    """Why it runs on machines without a GPU only; empty: it runs on all."""


def module_of(job: str) -> str:
    """The module whose `measure` the job runs. TRL and the control plane have wings of their own."""
    return f"dynalign.benchmarks.{job.replace('trl_', 'trl.').replace('control_', 'control.')}"


@dataclass(frozen=True, slots=True)
class Ratio:
    """A quotient of two figures, with its aim. One of the two aims is set."""

    job: str | None
    """The job that measures both figures; None: this version does not measure it."""
    over: str
    """The figure above the line."""
    under: str
    """The figure below the line; empty: the ratio is `over` itself."""
    at_least: float | None = None
    """The aim, where more is better."""
    at_most: float | None = None
    """The aim, where less is better."""

    @property
    def aim(self) -> str:
        return (
            f"≥ {readable(self.at_least)}"
            if self.at_least is not None
            else f"≤ {readable(self.at_most or 0.0)}"
        )

    def met(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


def readable(ratio: float) -> str:
    """The ratio with two digits after the point, more or fewer where it is far from 1."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.4f}"


ENGINE_CORE = 0
LEARNER_CORE = -1
NOT_MEASURED = "not measured by this version"
TRL = "trl==1.16.0"
"""The release that is measured."""

_TRL_ON_CPUS = "TRL's step is compared on CPUs: this machine has a GPU"

JOBS = {
    "record": Job(ENGINE_CORE, 600.0),
    "generation": Job(ENGINE_CORE, 600.0),
    "scoring": Job(ENGINE_CORE, 900.0, after=("record",)),
    "learning": Job(LEARNER_CORE, 900.0, after=("record",)),
    "weight_sync": Job(None, 600.0),
    "whole_run": Job(None, 900.0),
    "whole_step": Job(None, 1800.0, elsewhere=_TRL_ON_CPUS),
    "trl_environment": Job(None, 600.0, elsewhere=_TRL_ON_CPUS),
    "trl_transformers": Job(None, 1800.0, after=("whole_step", "trl_environment"), elsewhere=_TRL_ON_CPUS),
    "trl_vllm": Job(None, 900.0, after=("whole_step", "trl_environment"), elsewhere=_TRL_ON_CPUS),
    "control_plane": Job(None, 900.0),
    "alarms": Job(None, 1800.0),
    "bias": Job(
        None, 3600.0, elsewhere="a policy of 100,000 weights is compared on CPUs: this machine has a GPU"
    ),
}
"""In the order in which they run."""

BIASES = ("verbosity", "self_praise", "lexical", "format")
"""What is planted in the judge of the job `bias`."""
CONTROL_WORKERS = (1, 10, 100, 1000)
_CONTROL = {
    "groups_per_s": Kind("1/s", "reported by {} workers whose engines make 3,000/s, 100 kB each"),
    "lease_p50_s": Kind("s", "median latency of leases that fall due at 500/s by the clock, {} workers"),
    "lease_p99_s": Kind("s", "99th percentile of the same"),
    "starved_fraction": Kind(
        "1", "share of a step that a learner of 450/s waits for groups, {} workers whose engines make 600/s"
    ),
    "wire_bytes": Kind("bytes", "through sockets, per group of 100 kB, {} workers"),
    "file_bytes": Kind("bytes", "written and read by workers and learner, per group, {} workers"),
    "ledger_cpu_ms": Kind("ms", "processor time per group: the ledger, {} workers"),
    "coordinator_cpu_ms": Kind("ms", "processor time per group: the coordinator, {} workers"),
    "learner_cpu_ms": Kind("ms", "processor time per group: fetching its bytes, {} workers"),
    "workers_cpu_ms": Kind("ms", "processor time per group: all simulated workers, {}"),
    "driver_cpu_ms": Kind("ms", "processor time per group: the supervision's questions, {} workers"),
    "ray_cpu_ms": Kind("ms", "processor time per group: Ray's own processes, {} workers"),
}
FIGURES = {
    "generate_tokens_per_s": Kind(
        "tokens/s", "completion tokens by GroupMaker, a step's groups all in flight, records encoded"
    ),
    "generate_tokens_per_s_as_shipped": Kind(
        "tokens/s", "the same with rollout.groups_in_flight groups at a time"
    ),
    "generate_tokens_per_s_bare_vllm": Kind(
        "tokens/s", "the same engine, prompts, seeds, log-probabilities by AsyncLLM.generate alone"
    ),
    "judgements_per_s": Kind("1/s", "a step's candidates scored from a cold cache, prefixes shared"),
    "judgements_per_s_unshared": Kind("1/s", "the same candidates, every request computed whole"),
    "learn_tokens_per_s": Kind("tokens/s", "completion tokens by Learner.prepare and run"),
    "learn_tokens_per_s_bare_torch": Kind(
        "tokens/s", "the same packed rows: forward, backward, clip, AdamW, and nothing else"
    ),
    "learn_mfu": Kind("1", "the learner's matrix products and attentions per second / product_tflops"),
    "product_tflops": Kind("TFLOP/s", "one large bfloat16 matrix product on the learner's cores or GPU"),
    "learn_tokens_per_s_padded": Kind(
        "tokens/s", "the same groups padded, prompt repeated, the model's own attention"
    ),
    "publish_to_loaded_s": Kind(
        "s", "learner's weights in shared memory or the GPU's, checksums, loaded, with sequences in flight"
    ),
    "publish_s": Kind("s", "the learner's part of it: weights copied, checksums"),
    "generation_pause_s": Kind("s", "the part of it during which no token is generated"),
    "bare_reload_s": Kind("s", "the idle engine's reload_weights of the same tensors from shared memory"),
    "step_wall_s": Kind("s", "asynchronous run: from the end of one learner step to the end of the next"),
    "paused_fraction": Kind("1", "share of that time in which generation was paused for a new version"),
    "slower_side_s": Kind("s", "max(rollout_side_s, learn_s) of the same step"),
    "rollout_side_s": Kind("s", "generate + score of a step; time in which both go on counts once"),
    "learn_s": Kind("s", "the learner's part of a step"),
    "step_s": Kind(
        "s", "whole step of a run, 64 new tokens: bfloat16 over float32 weights, all cores, as shipped"
    ),
    "step_best_s": Kind("s", "the same with dynalign's fastest settings: the engine's model compiled"),
    "step_trl_transformers_s": Kind(
        "s", f"{TRL}, the same work, precision and cores, with transformers' generation"
    ),
    "step_trl_transformers_best_s": Kind(
        "s", "the same with what should be TRL's fastest: bfloat16 weights alone, so no casts"
    ),
    "step_trl_vllm_s": Kind(
        "s", f"{TRL}, the same work, precision and cores, with vLLM's generation in its process"
    ),
    "reward_last_steps": Kind("points", "mean reward of the candidates of the run's last steps"),
    "reward_last_steps_trl": Kind("points", "TRL's, of the same steps at equal precision: as many samples"),
    "memory_rollout_worker_mib": Kind("MiB", "peak resident: the worker's own process"),
    "memory_engine_core_mib": Kind("MiB", "peak resident: its EngineCore child, key-value cache included"),
    "memory_learner_mib": Kind("MiB", "peak resident: the learner rank"),
    "memory_coordinator_mib": Kind("MiB", "peak resident: the coordinator"),
    "memory_ledger_mib": Kind("MiB", "peak resident: the ledger"),
    "memory_driver_mib": Kind("MiB", "peak resident: the driver"),
    "memory_raylet_mib": Kind("MiB", "peak resident: raylet, object store pages it has touched included"),
    "memory_gcs_mib": Kind("MiB", "peak resident: Ray's control store"),
    "memory_ray_others_mib": Kind("MiB", "peak resident: Ray's agents, monitors and idle workers together"),
}
FIGURES |= {
    f"control_{name}_{n}": Kind(kind.unit, kind.what.format(n))
    for n in CONTROL_WORKERS
    for name, kind in _CONTROL.items()
}
FIGURES |= {
    "control_per_worker_of_1": Kind(
        "1/s", "groups of one worker, 8 in flight, engine 0.2 s each: 800 groups"
    ),
    "control_per_worker_of_8": Kind("1/s", "groups of each of 8 workers that make the same 800"),
}
FIGURES |= {
    f"alarm_{name}_false": Kind("1/1,000", "false alarms in 1,000 steps of clean simulated runs")
    for name in AlarmsSettings.model_fields
}
FIGURES |= {
    f"alarm_{fault.alarm}_{index}_{figure}": Kind(unit, f"{what}: {fault.what}")
    for index, fault in enumerate(FAULTS)
    for figure, unit, what in (
        ("soon", "1", "share of runs in which it fires within 10 steps"),
        ("soon_half", "1", "the same, the fault half as large"),
        ("delay", "steps", "from the onset to the alarm"),
    )
}
FIGURES |= {
    "alarms_false_worst": Kind("1/1,000", "false alarms in 1,000 clean steps, the worst alarm"),
    "alarms_false_together": Kind("1/1,000", "false alarms in 1,000 clean steps, all alarms together"),
    "alarms_soon_worst": Kind("1", "share of runs found within 10 steps, the worst fault"),
    "bias_none_alarms": Kind("1", "alarms that fired under the clean judge"),
    "bias_found_fraction": Kind("1", "share of the biases with an alarm within 10 steps of the onset"),
}
FIGURES |= {
    f"bias_{bias}_onset_step": Kind("step", "the policy takes the shortcut, by the published definition")
    for bias in BIASES
}
FIGURES |= {
    f"bias_{bias}_{name}": Kind("steps", "from that onset to the alarm; negative: before it")
    for bias in BIASES
    for name in AlarmsSettings.model_fields
}

RATIOS = {
    "step_vs_trl_transformers": Ratio("trl_transformers", "step_trl_transformers_s", "step_s", at_least=3.0),
    "step_vs_trl_vllm": Ratio("trl_vllm", "step_trl_vllm_s", "step_s", at_least=1.5),
    "generate_vs_bare_vllm": Ratio(
        "generation", "generate_tokens_per_s", "generate_tokens_per_s_bare_vllm", at_least=0.95
    ),
    "score_shared_vs_unshared": Ratio(
        "scoring", "judgements_per_s", "judgements_per_s_unshared", at_least=3.0
    ),
    "learn_vs_bare_torch": Ratio(
        "learning", "learn_tokens_per_s", "learn_tokens_per_s_bare_torch", at_least=0.95
    ),
    "learn_vs_padded": Ratio("learning", "learn_tokens_per_s", "learn_tokens_per_s_padded", at_least=1.5),
    "async_wall_vs_slower_side": Ratio("whole_run", "step_wall_s", "slower_side_s", at_most=1.1),
    "pause_vs_reload": Ratio("weight_sync", "generation_pause_s", "bare_reload_s", at_most=1.25),
    "sync_vs_reload": Ratio("weight_sync", "publish_to_loaded_s", "bare_reload_s", at_most=2.0),
    "control_groups_per_s": Ratio("control_plane", "control_groups_per_s_100", "", at_least=1000.0),
    "control_lease_p99_s": Ratio("control_plane", "control_lease_p99_s_100", "", at_most=0.02),
    "control_efficiency_8": Ratio(
        "control_plane", "control_per_worker_of_8", "control_per_worker_of_1", at_least=0.95
    ),
    "alarms": Ratio("alarms", "alarms_false_worst", "", at_most=1.0),
    "alarms_soon": Ratio("alarms", "alarms_soon_worst", "", at_least=0.9),
    "bias": Ratio("bias", "bias_found_fraction", "", at_least=0.9),
}


def chosen_ratios(only: str | None) -> tuple[str, ...]:
    """The keys in a comma-separated list; all of them for None. Raises UserError with every unknown one."""
    if only is None:
        return tuple(RATIOS)
    keys = [key.strip() for key in only.split(",")]
    unknown = [key for key in keys if key not in RATIOS]
    if unknown:
        raise UserError(
            Mistake("--only", key, "is no ratio of the benchmark", _instead(key)) for key in unknown
        )
    return tuple(key for key in RATIOS if key in keys)


def _instead(key: str) -> str:
    close = did_you_mean(key, RATIOS)
    return f"did you mean {close}?" if close else f"there are: {', '.join(RATIOS)}"


def jobs_for(ratios: Iterable[str]) -> tuple[str, ...]:
    """The jobs that measure these ratios, and the jobs those need, in the order in which they run."""
    wanted = {job for key in ratios if (job := RATIOS[key].job) is not None}
    wanted |= {earlier for job in wanted for earlier in JOBS[job].after}
    return tuple(job for job in JOBS if job in wanted)
