"""A result as one aligned table: figures with their spread, then ratios with their aims."""

from collections.abc import Iterator

from dynalign.benchmarks.catalog import RATIOS, readable
from dynalign.benchmarks.result import Host, Result

_NAME = 34
_NUMBER = 10
_UNIT = 9


def table_lines(result: Result) -> Iterator[str]:
    yield from _host_lines(result.host)
    if result.settings:
        yield f"with {' '.join(result.settings)}"
    if result.quick:
        yield "quick: a trial of the benchmark itself; these figures say nothing about speed"
    yield ""
    yield _row("figure", ("median", "min", "max"), "unit", "n", "what")
    for name, figure in result.figures.items():
        numbers = tuple(map(_number, (figure.median, figure.min, figure.max)))
        yield _row(name, numbers, figure.unit, str(figure.n), figure.what)
    yield ""
    yield _row("ratio", ("value", "aim"))
    for key, value in result.ratios.items():
        yield _ratio_row(key, value, result.reasons)


def _host_lines(host: Host) -> Iterator[str]:
    packages = ", ".join(f"{name} {version}" for name, version in host.packages.items())
    gpus = ", ".join(host.gpus) or "no GPU"
    load = f"load average before: {host.load_average:.2f}"
    yield f"{host.cpu}, {host.cores} cores, {host.memory_gib:.0f} GiB, {gpus}; {load}"
    yield f"{host.system}, Python {host.python}, {packages}; commit {host.commit or 'unknown'}"


def _ratio_row(key: str, value: float | None, reasons: dict[str, str]) -> str:
    ratio = RATIOS[key]
    if value is None:
        return _row(key, ("–", ratio.aim), what=reasons[key])
    verdict = "" if ratio.met(value) else "; falls short"
    what = f"{ratio.over} / {ratio.under}" if ratio.under else ratio.over
    return _row(key, (readable(value), ratio.aim), what=what + verdict)


def _row(name: str, numbers: tuple[str, ...], unit: str = "", n: str = "", what: str = "") -> str:
    columns = "".join(f"{text:>{_NUMBER}}" for text in (*numbers, "", "", "")[:3])
    return f"{name:<{_NAME}}{columns}  {unit:<{_UNIT}}{n:>2}  {what}".rstrip()


def _number(value: float) -> str:
    """Four significant digits, as many as a benchmark on a shared machine can mean."""
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f}"
