"""Every suite from local files, asked of a model that answers by a rule; for a process without a network."""

import contextlib
import socket
import sys
from pathlib import Path

from dynalign.evaluation.suites.tasks import SUITES
from dynalign.launch.commands.evaluate_suite import SuiteOptions, evaluate_suite
from tests.worlds.suite_items import RuleModel, write_items


def main(folder: Path) -> None:
    with contextlib.suppress(OSError):
        socket.create_connection(("1.1.1.1", 53), timeout=1).close()
        raise SystemExit("there is a network")
    model = folder / "tiny.yaml"
    model.write_text("{address: http://127.0.0.1:9/v1, model: tiny}")
    data = str(write_items(folder / "data"))
    for suite in SUITES:
        options = SuiteOptions(suite, model=str(model), data=data, out=str(folder / "out"))
        evaluate_suite(options, RuleModel(lambda _: "(A)").opened)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
