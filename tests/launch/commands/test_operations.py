"""docs/operations.md tells the truth: its commands are parsed, its settings, files, ports and links exist."""

import json
import re
import shlex
from collections.abc import Iterator

import click
import pytest

from dynalign.actors.coordinator.exported_metrics import EXPORTED
from dynalign.actors.coordinator.exported_samples import CAUSES
from dynalign.configs.load import listed, load_run
from dynalign.launch.cli import INTERRUPTED, dynalign
from dynalign.run_folder import layout
from tests.actors.coordinator.test_monitoring import LOADED
from tests.worlds.k8s_manifests import BUILDS, K8S, build, pod
from tests.worlds.product import ROOT
from tests.worlds.prometheus_tools import rules

TEXT = (ROOT / "docs" / "operations.md").read_text()


def shell_lines() -> Iterator[str]:
    """Every command line of the fenced blocks, continued lines joined, comments off."""
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.split("  #")[0].strip()


def own_commands() -> list[list[str]]:
    """The arguments of every `dynalign …`: at the start of a line, after `--`, or within a sentence."""
    inline = re.findall(r"`((?:kubectl [^`]*-- )?dynalign [a-z]+ [^`]+)`", TEXT.replace("\n", " "))
    found = []
    for words in (shlex.split(line, comments=True) for line in [*shell_lines(), *inline]):
        found += [
            words[at + 1 :]
            for at, word in enumerate(words)
            if word == "dynalign" and (at == 0 or words[at - 1] == "--")
        ]
    return found


def section(title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert found is not None, f"there is no section {title}"
    return found[1]


def test_every_command_is_one_that_dynalign_understands() -> None:
    commands = own_commands()
    assert {"check", "explain", "train", "status", "scale", "pause", "resume", "stop", "doctor"} <= {
        command[0] for command in commands
    }
    for name, *arguments in commands:
        context = dynalign.commands[name].make_context(name, list(arguments))
        if name in ("train", "check", "explain", "doctor"):
            load_run(context.params["config"], context.params["overrides"])


def test_a_command_with_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(click.UsageError):
        dynalign.commands["scale"].make_context("scale", ["cluster", "many"])


def test_every_command_named_in_a_sentence_exists() -> None:
    assert set(re.findall(r"`dynalign ([a-z]+)", TEXT)) <= set(dynalign.commands)


def test_every_setting_named_exists() -> None:
    known = {setting.path for setting in listed(load_run("quickstart", ["judge.pool={}"]).settings)}
    sections = {path.split(".")[0] for path in known if "." in path}
    named = {
        name
        for name in re.findall(r"`([a-z]+\.[a-z_.]+)(?:=[^`]*)?`", TEXT)
        if name.split(".")[0] in sections
    }
    files = {layout.METRICS, layout.HELDOUT, layout.CAPABILITY}
    missing = {
        name for name in named - known - files if not any(path.startswith(f"{name}.") for path in known)
    }
    assert "deadlines.stop_s" in named
    assert missing == set()


def test_what_is_built_and_applied_is_there() -> None:
    lines = list(shell_lines())
    applied = [line.split()[-1] for line in lines if line.startswith("kubectl apply -k")]
    assert applied
    assert {path.removeprefix("k8s/") for path in applied} <= set(BUILDS)
    assert {f"k8s/{build}" for build in BUILDS if build.startswith("overlays/")} <= set(
        re.findall(r"`(k8s/overlays/[\w-]+)`", TEXT)
    )
    for path in re.findall(r"k8s/[\w/.-]*[\w/]", TEXT):
        assert (ROOT / path).exists(), path
    assert (K8S / "docker" / "cpu.Dockerfile").is_file()


def test_every_file_of_a_run_folder_is_explained() -> None:
    files = [
        layout.CONFIG,
        layout.LEDGER_LOG,
        layout.METRICS,
        layout.HELDOUT,
        layout.CAPABILITY,
        layout.EVENTS,
        layout.POISON,
        layout.WITHHELD,
        layout.VALUE_TEXTS,
        layout.REPORT,
        layout.SUMMARY,
        layout.STATUS,
    ]
    table = section("A run folder")
    assert [
        file
        for file in [*files, layout.CHECKPOINTS, "spool/", "experience/", "owner.json", "owner.lock"]
        if file not in table
    ] == []


def test_every_exit_code_is_explained() -> None:
    assert re.findall(r"^\| (\d+) \|", section("How a run ends"), re.MULTILINE) == [
        "0",
        "1",
        "2",
        str(INTERRUPTED),
    ]


def test_the_ports_of_the_security_model_are_those_of_the_pods() -> None:
    table = section("Security")
    ports = pod("overlays/cluster", "head").ports
    missing = [port for name, port in ports.items() if name != "dynalign" and str(port) not in table]
    assert missing == []
    assert load_run("cluster").settings.metrics.port == ports["dynalign"]
    assert "`metrics.port`" in table


def test_every_secret_that_a_manifest_refers_to_is_named_and_no_other() -> None:
    named = set(re.findall(r"create secret generic ([\w-]+)", TEXT))
    text = json.dumps(build("overlays/cluster"))
    assert named == set(re.findall(r'"secret(?:Name|KeyRef|Ref)": (?:\{[^}]*"name": )?"([\w-]+)"', text))
    assert named <= set(re.findall(r"`([\w-]+)`", section("Security")))


def test_every_alert_panel_and_metric_named_exists() -> None:
    shown = section("Dashboards and alerts")
    panels = {panel["title"] for dashboard in LOADED.values() for panel in dashboard["panels"]}
    assert len(set(re.findall(r"\*\*(.+?)\*\*", shown))) > 15
    assert set(re.findall(r"\*\*(.+?)\*\*", shown)) <= panels
    assert {dashboard["title"].removeprefix("dynalign / ") for dashboard in LOADED.values()} <= set(
        re.findall(r"^\| \*(.+?)\*", shown, re.M)
    )
    assert set(re.findall(r"Dynalign\w+", TEXT)) <= {rule["alert"] for rule in rules()}
    assert set(re.findall(r"dynalign_\w+", TEXT)) <= {each.full_name for each in EXPORTED}


def test_the_generated_tables_of_metrics_and_alerts_are_a_link_away() -> None:
    linked = set(re.findall(r"\]\((metrics\.md[^)]*)\)", section("Dashboards and alerts")))
    assert linked == {"metrics.md", "metrics.md#what-each-alert-asks-for"}
    assert {"what-each-alert-asks-for", "what-dynalign-exports"} <= anchors(
        (ROOT / "docs" / "metrics.md").read_text()
    )


def test_every_kind_of_actor_that_is_restarted_has_its_story() -> None:
    rows = re.findall(
        r"^\| an? (?:rollout )?(\w+)|^\| the (\w+)", section("What survives what"), re.MULTILINE
    )
    assert set(CAUSES) <= {first or second for first, second in rows}


def anchors(text: str) -> set[str]:
    return {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


def test_every_link_leads_somewhere_and_every_section_is_in_the_contents() -> None:
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([\w-]+))?\)", TEXT):
        target = ROOT / "docs" / (file or "operations.md")
        assert target.exists(), file
        assert not anchor or anchor in anchors(target.read_text()), f"{file}#{anchor}"
    assert re.findall(r"^- \[(.+?)\]", TEXT, re.MULTILINE) == re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
