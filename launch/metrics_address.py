"""Whether the coordinator can listen on `metrics.host`."""

import ipaddress
import os
import socket

from dynalign.configs.errors import Mistake
from dynalign.configs.schema import RunSettings


def host_mistakes(settings: RunSettings) -> list[Mistake]:
    """The mistake of an address that is not of this machine, where the coordinator will run on it."""
    host = settings.metrics.host
    if settings.metrics.port is None or os.environ.get("RAY_ADDRESS", "local") not in ("", "local"):
        return []
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return []  # to look a name up may take seconds
    try:
        with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6) as probe:
            probe.bind((host, 0))
    except OSError as error:
        rule = f"is no address that this machine can listen on ({error.strerror})"
        remedy = "set metrics.host=127.0.0.1, or 0.0.0.0 for other nodes, too"
        return [Mistake("metrics.host", host, rule, remedy)]
    return []
