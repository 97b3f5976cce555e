"""Grafana's dashboard model, as much of it as the shipped dashboards need: panels in, JSON out.

For Grafana 10 and newer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

SCHEMA_VERSION = 38  # Grafana 10; newer ones migrate it
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    """A line of a panel."""

    expression: str
    """In PromQL."""

    legend: str = "{{run}}"
    """Its name. Grafana fills in `{{label}}`."""


@dataclass(frozen=True)
class Panel:
    """One chart or figure of a dashboard."""

    title: str

    description: str
    """What is good, what is bad, and what to look at then."""

    queries: tuple[Query, ...]

    unit: str = "short"
    """Grafana's name of the unit."""

    kind: str = "timeseries"
    """Grafana's name of the visualization."""

    width: int = 8
    """Of the 24 columns."""

    height: int = 8
    """In grid units of about 38 pixels."""

    thresholds: tuple[tuple[float, str], ...] = ()
    """(from this value on, colour), beginning with green."""

    least: float | None = 0
    """Lower end of the axis; None: as the values need."""

    most: float | None = None
    """Upper end of the axis; None: as the values need."""

    stacked: bool = False


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]


def dashboard_json(dashboard: Dashboard) -> Json:
    """The model that Grafana's file provisioning reads."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["dynalign"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "links": [
            {
                "title": "dynalign",
                "type": "dashboards",
                "tags": ["dynalign"],
                "asDropdown": False,
                "keepTime": True,
                "includeVars": True,
            }
        ],
        "templating": {"list": [_source_variable(), _run_variable()]},
        "annotations": {"list": list(_annotations())},
        "panels": list(_panels(dashboard.rows)),
    }


def _source_variable() -> Json:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
    }


def _run_variable() -> Json:
    query = {"query": "label_values(dynalign_build_info, run)", "refId": "run"}
    chosen = {
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }
    return {
        "name": "run",
        "label": "Run",
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "hide": 0,
    } | chosen


ANNOTATIONS = {
    "Lineages": ("purple", 'changes(dynalign_lineage{run=~"$run"}[1m]) > 0', "a new lineage begins"),
    "Restarts": (
        "red",
        'sum by (run, kind, cause) (increase(dynalign_restarts_total{run=~"$run"}[1m])) > 0',
        "{{kind}} {{cause}}",
    ),
    "Pool size": (
        "blue",
        'changes(dynalign_workers_wanted{run=~"$run"}[1m]) > 0',
        "another number of workers is wanted",
    ),
}
"""Name → colour, expression, title: vertical lines in every panel."""


def _annotations() -> Iterator[Json]:
    for name, (colour, expression, title) in ANNOTATIONS.items():
        look = {"name": name, "enable": True, "hide": False, "iconColor": colour, "datasource": SOURCE}
        yield look | {
            "expr": expression,
            "step": "15s",
            "titleFormat": title,
            "textFormat": "{{run}}",
            "useValueForTime": False,
        }


def _panels(rows: Sequence[Row]) -> Iterator[Json]:
    number = 0
    top = 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": _grid_position(0, top, COLUMNS, 1),
        }
        left = 0
        top += 1
        line_height = 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                left = 0
                top += line_height
                line_height = 0
            number += 1
            yield _panel(panel, number) | {"gridPos": _grid_position(left, top, panel.width, panel.height)}
            left += panel.width
            line_height = max(line_height, panel.height)
        top += line_height


def _grid_position(left: int, top: int, width: int, height: int) -> Json:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(panel: Panel, number: int) -> Json:
    steps = [
        {"value": value if index else None, "color": colour}
        for index, (value, colour) in enumerate(panel.thresholds or ((0, "green"),))
    ]
    defaults: Json = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
        "min": panel.least,
        "max": panel.most,
    }
    if panel.kind == "timeseries":
        defaults["custom"] = _lines(panel)
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "targets": [_target(query, panel.kind, index) for index, query in enumerate(panel.queries)],
        "fieldConfig": {
            "defaults": {key: value for key, value in defaults.items() if value is not None},
            "overrides": [],
        },
        "options": _options(panel),
    }


def _lines(panel: Panel) -> Json:
    custom: Json = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stacked else 5,
        "showPoints": "auto",
        "spanNulls": 120_000,
    }
    custom["stacking"] = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    if panel.thresholds:
        custom["thresholdsStyle"] = {"mode": "line"}
    return custom


def _target(query: Query, kind: str, index: int) -> Json:
    target: Json = {
        "refId": chr(ord("A") + index),
        "datasource": SOURCE,
        "expr": query.expression,
        "legendFormat": query.legend,
    }
    target |= {"instant": kind == "stat", "range": kind != "stat"}
    return target | ({"format": "heatmap"} if kind == "heatmap" else {})


def _options(panel: Panel) -> Json:
    match panel.kind:
        case "stat":
            text = "name" if panel.unit == "name" else "auto"
            reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
            return {
                "reduceOptions": reduce,
                "textMode": text,
                "colorMode": "value",
                "graphMode": "none",
                "orientation": "auto",
            }
        case "heatmap":
            return {
                "calculate": False,
                "cellGap": 1,
                "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
                "yAxis": {"unit": panel.unit},
            }
        case "state-timeline":
            return {
                "mergeValues": True,
                "showValue": "never",
                "rowHeight": 0.8,
                "legend": {"displayMode": "list", "placement": "bottom"},
            }
        case _:
            legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
