"""A run with a mirror loses its folder and continues; and the same storage calls against a real S3 API."""

import http.client
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynalign.configs.errors import MirrorError
from dynalign.launch.resume.mirrored import restore
from dynalign.rollout.ledger.log import committed, read
from dynalign.run_folder.checkpoint import newest_whole, prune, verify
from dynalign.run_folder.metrics import read_heldout, read_metrics
from tests.run_folder.test_checkpoint import written
from tests.run_folder.test_mirror import MirroredRun
from tests.worlds.command import train
from tests.worlds.one_rank import free_port
from tests.worlds.tiny_run import config

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(540)]


def test_a_run_whose_folder_is_lost_goes_on_from_the_mirror_with_its_history(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny"
    mirror = tmp_path / "mirror" / "tiny"
    checkpoint = {"every_steps": 1, "keep_last": 1, "keep_best": 1, "mirror": f"file://{tmp_path}/mirror"}
    file = config(tmp_path, heldout={"prompts": 2, "every_steps": 1}, checkpoint=checkpoint)
    first = train(file, "steps=2")
    assert first.code == 0, first.output
    assert f"mirrored: step 2 in file://{tmp_path}/mirror/tiny" in first.output
    assert verify(mirror / "step-000002") == verify(folder / "checkpoints" / "step-000002")
    answers = read_heldout(folder)
    began = (folder / "config.yaml").read_text()

    shutil.rmtree(
        mirror / "step-000002"
    )  # somebody tidied up: the same command of a finished run brings it back
    again = train(file, "steps=2")
    assert again.code == 0, again.output
    verify(mirror / "step-000002")

    shutil.rmtree(folder)
    longer = train(file, "steps=4", "experience.keep_steps=1")
    assert longer.code == 0, longer.output
    assert "continuing from the mirror: step 2" in longer.output
    newest = newest_whole(folder / "checkpoints")
    assert newest is not None
    lineage = verify(newest).lineage
    assert [(row["step"], row["lineage"]) for row in read_metrics(folder)][-2:] == [
        (3, lineage),
        (4, lineage),
    ]
    assert [row["step"] for row in read_metrics(folder)] == [0, 1, 2, 3, 4]
    assert [item for item in read_heldout(folder) if item.step <= 1] == [
        item for item in answers if item.step <= 1
    ]
    assert [commit.step for commit in committed(read(folder / "ledger.log"))] == [3, 4]
    assert [path.name for path in (folder / "experience").iterdir()] == ["step-000004.arrow"]
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["trained"], summary["pending"], summary["leased"], summary["scored"]) == (4 * 2, 0, 0, 0)
    assert (
        next(line for line in began.splitlines() if line.startswith("date")).partition("#")[0]
        in (folder / "config.yaml").read_text()
    )
    assert {path.name for path in mirror.glob("step-*")} == {
        path.name for path in (folder / "checkpoints").glob("step-*")
    }


@pytest.fixture
def s3() -> Iterator[str]:
    """The address of a bucket on a server of this machine."""
    server = shutil.which("moto_server")
    if server is None:
        pytest.skip(
            "moto_server is not on the PATH (pip install 'moto[server]' into an environment of its own)"
        )
    port = free_port()
    process = subprocess.Popen(
        [server, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "word",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        until_s = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{port}/bucket", "PUT"):
            assert time.monotonic() < until_s
            time.sleep(0.1)
        if not completes_as_s3_does(port):
            pytest.skip("this moto_server does not answer multipart uploads as S3 does: moto 5.2.5 does")
        yield f"s3://bucket/runs?endpoint_override=127.0.0.1:{port}&scheme=http"
    finally:
        process.kill()
        process.wait(20)


def completes_as_s3_does(port: int) -> bool:
    """Whether the answer to CompleteMultipartUpload is one that pyarrow reads as a success."""

    def ask(method: str, query: str, body: str = "") -> tuple[str, str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        scope = "Credential=key/20260101/us-east-1/s3/aws4_request"
        signed = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"
        connection.request(method, f"/bucket/probe?{query}", body, {"Authorization": signed})
        response = connection.getresponse()
        return response.read().decode(), response.headers["ETag"]

    upload = ask("POST", "uploads")[0].partition("<UploadId>")[2].partition("<")[0]
    _, tag = ask("PUT", f"partNumber=1&uploadId={upload}", "part")
    parts = f"<Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part>"
    done, _ = ask("POST", f"uploadId={upload}", f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
    return "<CompleteMultipartUploadResult" in done


def answers(address: str, method: str) -> bool:
    try:
        return (
            urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=10).status == 200
        )
    except OSError:
        return False


def test_s3_holds_replaces_prunes_and_gives_back_checkpoints(s3: str, tmp_path: Path) -> None:
    place = MirroredRun(tmp_path, s3, keep_last=2)
    assert place.look() is not None
    for step in (10, 20, 30):
        written(place.checkpoints, step, content=os.urandom(12_000_000))
        prune(place.checkpoints, 2)
        assert place.bring_up_to_date() == ""
    assert place.storage().steps() == [20, 30]
    shutil.rmtree(place.checkpoints / "step-000030")
    place.mine.new_lineage(time.time())
    lost = verify(written(place.checkpoints, 30, lineage=2, content=b"shorter"))
    assert place.bring_up_to_date() == ""
    assert place.storage().checkpoints()[30] == lost
    shutil.rmtree(place.folder)
    mirrored = place.look()
    assert mirrored is not None
    assert mirrored.lost == lost
    restore(mirrored, place.folder, lambda: False)
    assert newest_whole(place.checkpoints) == place.checkpoints / "step-000030"
    place.storage().remove(30)
    place.storage().remove(30)
    assert place.storage().steps() == [20]


def test_a_bucket_that_is_not_there_is_refused_in_one_line(s3: str, tmp_path: Path) -> None:
    nowhere = MirroredRun(tmp_path, s3.replace("bucket", "nowhere"))
    assert "The specified bucket does not exist" in nowhere.mistake()


def test_a_server_that_is_gone_is_told(s3: str, tmp_path: Path) -> None:
    storage = MirroredRun(tmp_path, s3.replace("127.0.0.1:", "127.0.0.1:1")).storage()
    with pytest.raises(MirrorError, match=r"mirror s3://bucket/runs/run: OSError"):
        storage.steps()
