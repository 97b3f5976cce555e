"""`python -m benchmarks [--json FILE] [--only KEY,…] [--quick] [key=value …]`: measures this machine and
prints one table.

    arguments ─► model ─► one process per job, one after the other ─► figures ─► ratios ─► table, JSON

On a machine with a GPU, the work is that of `single-gpu`, on the GPU; otherwise that of `quickstart`, on the
CPU cores. If a job fails, or cannot run on this machine, its ratios become null with the reason.

Exit codes: 0 everything that can be measured here was measured; 1 something failed; 2 wrong arguments; 130
interrupted, and what was measured until then is still printed and written.
"""

import datetime
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import click

from dynalign.benchmarks.catalog import JOBS, chosen_ratios, jobs_for
from dynalign.benchmarks.command_line import INTERRUPTED, INTERRUPTED_CODE, run_command_line
from dynalign.benchmarks.host import this_host
from dynalign.benchmarks.process import run_python
from dynalign.benchmarks.result import FORMAT, Host, Result, figures_of, ratios_of
from dynalign.benchmarks.table import table_lines
from dynalign.benchmarks.workload import CONFIGS, Device, Workload
from dynalign.configs.errors import DynalignError, Mistake, NotMeasurable, UserError
from dynalign.configs.load import load_run
from dynalign.launch.models import folder as model_folder
from dynalign.launch.models.fetch import SOURCES
from dynalign.run_folder import durable

_FETCH_DEADLINE_S = 2 * 3600.0
_SHARED_MEMORY = Path("/dev/shm")  # the memory-backed folder of Linux


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--json", "file", type=click.Path(path_type=Path), help="Also write figures and ratios to this file."
)
@click.option("--only", metavar="KEY,…", help="Measure these ratios alone.")
@click.option(
    "--quick",
    is_flag=True,
    help="A small trial in a few minutes: shows that the benchmark works, not how fast anything is.",
)
@click.argument("settings", nargs=-1)
def bench(file: Path | None, only: str | None, quick: bool, settings: tuple[str, ...]) -> int:
    """Measure this machine: one table of figures and ratios.

    SETTINGS (model=FOLDER, rollout.max_completion_tokens=512, …) replace those of the shipped run whose work
    is measured.
    """
    chosen = chosen_ratios(only)
    if file is not None and (not file.absolute().parent.is_dir() or file.is_dir()):
        remedy = "make the folder, or name another file"
        raise UserError([Mistake("--json", str(file), "is no file in an existing folder", remedy)])
    host = this_host()
    device: Device = "gpu" if host.gpus else "cpu"
    model = load_run(CONFIGS[device], settings).settings.model
    with ExitStack() as folders:
        scratch, memory = _scratch(folders)
        workload = Workload(_model_folder(model, scratch), scratch, memory, quick, device, settings)
        workload.write()
        samples, failures, impossible = run_jobs(jobs_for(chosen), workload)
    result = _result(host, workload, samples, chosen, failures | impossible)
    click.echo("\n".join(table_lines(result)))
    if file is not None:
        _write(file, result)
    return INTERRUPTED_CODE if INTERRUPTED in failures.values() else 1 if failures else 0


def _scratch(folders: ExitStack) -> tuple[Path, Path]:
    """Create two folders, on disk and in shared memory, which are removed with `folders`."""
    on_disk = tempfile.TemporaryDirectory(prefix="dynalign-bench-", ignore_cleanup_errors=True)
    disk = Path(folders.enter_context(on_disk))
    shared = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else disk
    in_memory = tempfile.TemporaryDirectory(prefix="dynalign-bench-", dir=shared)
    return disk, Path(folders.enter_context(in_memory))


def run_job(name: str, workload: Workload) -> dict[str, list[float]]:
    """Run one job in a process of its own; return its samples.

    Raises NotMeasurable if it cannot run on this machine, RunFailed with the last line it wrote, or
    DeadlineExceeded.
    """
    started_s = time.monotonic()
    click.echo(f"{name} …", err=True)
    run_python(
        ["-m", "dynalign.benchmarks.job", name, str(workload.scratch)],
        workload.scratch / f"{name}.log",
        JOBS[name].deadline_s,
    )
    click.echo(f"{name}: {time.monotonic() - started_s:.0f} s", err=True)
    if workload.reason_file(name).exists():
        raise NotMeasurable(workload.reason_file(name).read_text())
    measured: dict[str, list[float]] = json.loads(workload.samples_file(name).read_text())
    return measured


def run_jobs(
    jobs: Iterable[str],
    workload: Workload,
    run: Callable[[str, Workload], dict[str, list[float]]] = run_job,
) -> tuple[dict[str, list[float]], dict[str, str], dict[str, str]]:
    """Run jobs one after the other; return (samples, failures, impossible).

    The latter two give the reason why a job failed, or why it cannot run on this machine. run: runs one job.
    """
    samples: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    impossible: dict[str, str] = {}
    for name in jobs:
        if INTERRUPTED in failures.values():
            failures[name] = INTERRUPTED
            continue
        if workload.device == "gpu" and JOBS[name].elsewhere:
            impossible[name] = JOBS[name].elsewhere
            continue
        failed = next((earlier for earlier in JOBS[name].after if earlier in failures), None)
        if failed is not None:
            failures[name] = f"{failed} failed: {failures[failed]}"
            continue
        try:
            samples |= run(name, workload)
        except KeyboardInterrupt:
            failures[name] = INTERRUPTED
            click.echo(f"{name} {INTERRUPTED}", err=True)
        except NotMeasurable as error:
            impossible[name] = str(error)
            click.echo(f"{name}: {error}", err=True)
        except DynalignError as error:
            failures[name] = " ".join(str(error).split())
            click.echo(f"{name} failed: {failures[name]}", err=True)
    return samples, failures, impossible


def _model_folder(model: str, scratch: Path) -> Path:
    """Return the model's folder, downloaded first if needed.

    Raises UserError if it can be neither found nor downloaded.
    """
    if model in SOURCES:
        click.echo(f"model {model} (fetched first if it is not there)", err=True)
        run_python(
            ["-m", "dynalign.launch.cli", "model", "fetch", model], scratch / "fetch.log", _FETCH_DEADLINE_S
        )
    found = model_folder.model_folder(model)
    return found if isinstance(found, Path) else model_folder.download(found)


def _result(
    host: Host,
    workload: Workload,
    samples: dict[str, list[float]],
    chosen: Iterable[str],
    unmeasured: dict[str, str],
) -> Result:
    figures = figures_of(samples)
    ratios, reasons = ratios_of(figures, chosen, unmeasured)
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    settings = list(workload.chosen)
    return Result(
        format=FORMAT,
        made=made,
        quick=workload.quick,
        settings=settings,
        host=host,
        figures=figures,
        ratios=ratios,
        reasons=reasons,
    )


def _write(file: Path, result: Result) -> None:
    durable.write(file, result.model_dump_json(indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(run_command_line(bench, "python -m benchmarks"))
