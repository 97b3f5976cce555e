"""Section `metrics`: the Prometheus endpoint."""

from typing import Annotated

from pydantic import Field

from dynalign.configs.section import Section


class MetricsSettings(Section):
    """Where Prometheus reads the metrics of a run.

    Example: `{host: 0.0.0.0, port: 8090}`.
    """

    port: Annotated[int, Field(ge=0, le=65_535)] | None = 0
    """Port of `/metrics` on the coordinator's node; 0: a free one, which `dynalign status` shows; null: no
    endpoint."""
    host: str = "127.0.0.1"
    """Address that the endpoint listens on. `0.0.0.0` lets a Prometheus on another node read it. There is
    no password."""
