"""How an evaluation opens its models: all examined before one answers, and one journal."""

import json
from pathlib import Path

import pytest

from dynalign.configs.errors import UserError
from dynalign.launch.commands.evaluate_pairwise import PairwiseOptions, evaluate_pairwise
from tests.worlds.evaluated_models import endpoint
from tests.worlds.scripted_endpoint import MODEL, Exchange, scripted_endpoint


def options(folder: Path, model: str, against: str, judge: str) -> PairwiseOptions:
    return PairwiseOptions(
        model=model, against=against, judges=(judge,), limit=3, out=str(folder / "card"), prompted=True
    )


def says_verdicts(exchange: Exchange) -> None:
    """A server that is both: a model that answers, and a judge that prefers what is shown first."""
    judged = "answer_A" in exchange.body["messages"][-1]["content"]
    text = (
        json.dumps({"rationale": "first", "verdict": "A"}) if judged else f"said {len(exchange.server.asked)}"
    )
    response = exchange.server.billed_response(exchange.body)
    response["choices"][0]["message"]["content"] = text
    exchange.respond(200, json.dumps(response))


def test_a_whole_evaluation_over_http_reads_its_journal_the_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_endpoint(act=says_verdicts) as server:
        file = endpoint(tmp_path, MODEL, server.address)
        assert evaluate_pairwise(options(tmp_path, file, file, file)) == 0
        paid = sum("task" in str(body) or len(body["messages"]) > 1 for body in server.billed)
        assert paid >= 6
        billed = len(server.billed)
        assert evaluate_pairwise(options(tmp_path, file, file, file)) == 0
        examined = len(server.billed) - billed
        assert examined < 8  # the small questions before each opening, and no answer or verdict
    card = json.loads((tmp_path / "card" / "evaluation.json").read_text())
    assert card["figures"]["win_rate"]["mean"] == 0.5
    assert card["figures"]["judges"][0]["position"]["bias"]["mean"] == 0.5
    assert "unusable as a judge" in capsys.readouterr().out


def test_every_endpoint_is_examined_before_the_first_model_answers(tmp_path: Path) -> None:
    with scripted_endpoint(act=says_verdicts) as server:
        good = endpoint(tmp_path, MODEL, server.address)
        unknown = endpoint(tmp_path, "unknown", server.address)
        absent = endpoint(tmp_path, "absent", "http://127.0.0.1:1/v1")
        with pytest.raises(UserError) as caught:
            evaluate_pairwise(options(tmp_path, good, unknown, absent))
        lines = str(caught.value).splitlines()
        assert any("unknown" in line for line in lines)
        assert any("127.0.0.1:1" in line for line in lines)
        assert not [body for body in server.billed if len(body["messages"]) > 1]
