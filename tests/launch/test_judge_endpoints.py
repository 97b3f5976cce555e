"""The endpoints of a run's judges, asked before it starts: each mistake is a line, what was asked is said."""

import sqlite3
from pathlib import Path

import pytest

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import load_run
from dynalign.endpoint.budget import totals_in
from dynalign.launch.judge_endpoints import asked_aside, asked_for_run, endpoint_uses
from dynalign.launch.preflight import check, run_texts
from dynalign.launch.resume.open_run import open_run
from dynalign.run_folder import layout
from tests.launch.test_preflight import _alone, run
from tests.worlds.scripted_endpoint import Act, Exchange, answering, judging, scripted_endpoint

__all__ = ["_alone"]

JUDGE = ("judge.kind=external", "judge.models=[big]", "judge.endpoints.big.model=tiny")


def mistakes(act: Act, folder: Path, *overrides: str) -> list[Mistake]:
    with scripted_endpoint(act=act) as server:
        address = f"judge.endpoints.big.address={server.address}"
        settings = load_run("quickstart", [*JUDGE, address, *overrides]).settings
        with pytest.raises(UserError) as refused:
            asked_aside(settings, folder, run_texts(settings))
    assert not (folder / layout.ANSWERS).exists()
    return list(refused.value.mistakes)


def test_what_is_needed_of_an_endpoint_follows_from_the_judge() -> None:
    def needs(*overrides: str) -> set[str]:
        address = "judge.endpoints.big.address=http://judge/v1"
        settings = load_run("quickstart", [*JUDGE, address, *overrides]).settings
        return set(endpoint_uses(settings)["big"].needs)

    assert needs() == {"seeds", "logprobs"}
    assert needs("judge.scorer=sampled") == {"seeds", "json_schema"}
    assert needs("judge.kind=ranked") == {"seeds", "logprobs", "json_schema"}


def test_a_server_that_can_do_what_is_needed_is_known_and_what_it_was_asked_is_said(tmp_path: Path) -> None:
    with scripted_endpoint(act=judging) as server:
        settings = load_run("quickstart", [*JUDGE, f"judge.endpoints.big.address={server.address}"]).settings
        texts = run_texts(settings)
        found = asked_for_run(settings, tmp_path / "run", texts)
        requests = len(server.billed)
        asked_for_run(settings, tmp_path / "run", texts)
    assert len(server.billed) == 2 * requests - 1  # the longest question is in the journal
    (line,) = found.told
    assert line.startswith(f"judge.endpoints.big: tiny at {server.address} was asked {requests} questions")
    assert "has log-probabilities, has seeds" in line
    capabilities = found.uses["big"].capabilities
    assert capabilities is not None
    assert capabilities.logprobs
    (total,) = totals_in(tmp_path / "run" / layout.ANSWERS)
    assert (total.account, total.requests) == (f"tiny at {server.address}", len(server.billed))
    assert total.spent.tokens == server.billed_tokens
    with sqlite3.connect(tmp_path / "run" / layout.ANSWERS) as db:
        assert db.execute("SELECT DISTINCT purpose FROM requests").fetchall() == [("preflight",)]


def test_a_server_without_log_probabilities_is_refused_for_expected(tmp_path: Path) -> None:
    (mistake,) = mistakes(answering, tmp_path)
    assert mistake.place == "judge.endpoints.big"
    assert "has no log-probabilities" in mistake.rule


def test_a_context_that_does_not_hold_the_longest_question_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    def short(exchange: Exchange) -> None:
        if len(exchange.body["messages"][-1]["content"].split()) > 500:
            exchange.error(400, "This model's maximum context length is 512 tokens.")
        else:
            judging(exchange)

    (mistake,) = mistakes(short, tmp_path)
    assert mistake.place == "judge.endpoints.big"
    assert "does not answer the longest question of this run, about" in mistake.rule
    assert "maximum context length is 512 tokens" in mistake.rule
    assert "longer context" in mistake.remedy


def test_what_can_be_known_without_asking_is_reported_together_and_nobody_is_asked(tmp_path: Path) -> None:
    overrides = ("judge.endpoints.big.budget_tokens=900", "judge.endpoints.big.key_variable=NOT_THERE_KEY")

    def never(exchange: Exchange) -> None:
        raise AssertionError("nobody may be asked")

    found = mistakes(never, tmp_path, *overrides)
    places = [mistake.place for mistake in found]
    assert places == ["judge.endpoints.big.key_variable", "judge.endpoints.big.budget_tokens"]
    assert "0 are spent, and the longest question can cost" in found[1].rule


def test_a_budget_that_is_used_up_is_told_from_the_run_s_journal(tmp_path: Path) -> None:
    with scripted_endpoint(act=judging) as server:
        address = f"judge.endpoints.big.address={server.address}"
        settings = load_run("quickstart", [*JUDGE, address]).settings
        texts = run_texts(settings)
        asked_for_run(settings, tmp_path, texts)
        limited = load_run("quickstart", [*JUDGE, address, "judge.endpoints.big.budget_tokens=20000"])
        asked_aside(limited.settings, tmp_path, texts)
        with sqlite3.connect(tmp_path / layout.ANSWERS) as db:
            db.execute("UPDATE spent SET tokens = 19000")
        with pytest.raises(UserError, match="budget_tokens = 20000: 19,000 are spent") as refused:
            asked_aside(limited.settings, tmp_path, texts)
    (mistake,) = refused.value.mistakes
    assert mistake.remedy.startswith("set it to ")


def test_check_asks_where_nothing_else_is_wrong_and_writes_nothing() -> None:
    with scripted_endpoint(act=judging) as server:
        endpoint = [*JUDGE, f"judge.endpoints.big.address={server.address}"]
        opened = open_run(run(*endpoint))
        checked = check(opened)
        assert checked.mistakes == []
        assert any(note.startswith("judge.endpoints.big: tiny at") for note in checked.asked)
        assert not opened.folder.path.exists()
        asked = len(server.billed)
        assert check(opened, ask=False).mistakes == []
        wrong = open_run(run(*endpoint, "judge.probes=[bg]"))
        (mistake,) = check(wrong).mistakes
        assert (mistake.place, mistake.value, mistake.remedy) == ("judge.probes", "bg", "did you mean big?")
        assert len(server.billed) == asked


def test_check_refuses_an_endpoint_that_is_not_there() -> None:
    with scripted_endpoint() as server:
        pass
    away = open_run(run(*JUDGE, f"judge.endpoints.big.address={server.address}"))
    (mistake,) = check(away).mistakes
    assert mistake.place == "judge.endpoints.big.address"
