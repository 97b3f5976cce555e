"""A Ray cluster for a run: the one that RAY_ADDRESS names, or a new one on this machine.

`ray.init` waits 40 s for a head that is not there and 20 s with a wrong token, and it aborts the process
when the token's file is absent. So the head is asked first, in one call with a deadline, and each of these
failures is a message of one line.
"""

import contextlib
import logging
import os
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import ray

from dynalign.actors.run_spec import NAMESPACE
from dynalign.actors.supervision.ray_start import started_or_failed
from dynalign.configs.errors import Mistake, RunFailed, UserError
from dynalign.configs.schema import RunSettings
from dynalign.configs.user_paths import home_folder
from dynalign.launch.ray_cluster import ray_job

logger = logging.getLogger(__name__)

ADDRESS_VARIABLE = "RAY_ADDRESS"
ANSWER_DEADLINE_S = 10.0
"""The head answers within milliseconds; a name server or a far network may take seconds."""
_ADDRESS_REMEDY = "host:port of the head (6379 if nothing else was chosen)"
_TOKEN_REMEDY = (
    "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file, "
    "with the token that `ray get-auth-token` prints on the head"
)


def connect(run: RunSettings) -> bool:
    """Joins the cluster that RAY_ADDRESS names (a Ray job sets it), else starts one. True if it was started.

    Raises UserError when the cluster cannot be joined, RunFailed when Ray does not start on this machine.
    """
    needed = run.rollout.workers.max * run.rollout.engine_threads + run.learner.ranks * run.learner.threads
    needed += run.judge.pool.engines * run.judge.pool.engine_threads if run.judge.pool else 0
    return join_or_start(needed, run.placement.object_store_gib)


def join_or_start(cores: int, object_store_gib: float) -> bool:
    """The same for any command. cores: that its actors reserve; Ray counts at least as many on this machine.

    Raises what `connect` raises.
    """
    if join():
        return False
    make_private_token()
    start = partial(
        ray.init,
        address="local",
        num_cpus=max(cores, os.cpu_count() or 1),
        object_store_memory=int(object_store_gib * 2**30),
        include_dashboard=False,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    started_or_failed(start, "Ray does not start in this machine")
    return True


def make_private_token() -> None:
    """Makes Ray's token file before Ray does, which would make it readable for every user of this machine.

    One that is there and open to others is closed to them.

    Nothing happens where the token comes from elsewhere, or where there is no home folder.
    """
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if named or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    try:
        file = _token_file()
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        with contextlib.suppress(OSError):  # another user's file
            file.chmod(file.stat().st_mode & 0o700)
    except (OSError, RuntimeError) as error:
        logger.warning("Ray's token cannot be written here (%s)", error)
    else:
        with os.fdopen(descriptor, "w") as token:
            token.write(secrets.token_hex(32))


def _token_file() -> Path:
    """Where Ray keeps the token of this user."""
    return home_folder("RAY_AUTH_TOKEN_PATH") / ".ray" / "auth_token"


def join() -> bool:
    """Joins the cluster that RAY_ADDRESS names; False where it names none.

    Raises UserError like `reach`, or when Ray refuses.
    """
    address = reach()
    if address is None:
        return False
    start = partial(
        ray.init,
        address=address,
        namespace=NAMESPACE,
        # Users of a submitted job look for its actors' lines in `ray job logs`.
        log_to_driver=ray_job.inside(),
        logging_level=logging.ERROR,
    )
    try:
        started_or_failed(start, "could not be joined")
    except RunFailed as error:
        remedy = "run this on a node of the cluster, or send it there with `ray job submit`"
        _refuse(str(error), remedy)
    return True


def node_rows() -> list[dict[str, Any]]:
    """The rows of `ray.nodes()`, which has no types: one per node, dead ones included."""
    listed: Callable[[], list[dict[str, Any]]] = ray.nodes
    return listed()


def reach() -> str | None:
    """host:port of the head that RAY_ADDRESS names, which has just answered; None where it names no cluster.

    Raises UserError for another kind of address, no answer, a missing or wrong token, another version of Ray.
    """
    named = os.environ.get(ADDRESS_VARIABLE)
    if not named or named == "local":
        return None
    _check_kind(named)
    address = _found_here() if named == "auto" else named
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" and not _has_token():
        raise UserError([Mistake("RAY_AUTH_MODE", "token", "there is no token here", _TOKEN_REMEDY)])
    version = _ask(address)
    if version != ray.__version__:
        rule = f"runs Ray {version}, and here is Ray {ray.__version__}"
        _refuse(rule, "install the same version on both sides")
    return address


def _refuse(rule: str, remedy: str) -> NoReturn:
    raise UserError([Mistake(ADDRESS_VARIABLE, os.environ[ADDRESS_VARIABLE], rule, remedy)])


def _check_kind(named: str) -> None:
    submit = f"set it to {_ADDRESS_REMEDY}, or send the run there with `ray job submit`"
    if named.startswith(("http://", "https://")):
        _refuse("is the address of a dashboard, which only takes jobs", submit)
    if named.startswith("ray://"):
        _refuse("is the address of a Ray client server, whose drivers cannot own a run's actors", submit)
    host, _, port = named.rpartition(":")
    if named != "auto" and not (host and port.isdigit()):
        _refuse("is no address", submit)


def _found_here() -> str:
    """The address of the cluster that was started on this machine, with its token if it has one."""
    from ray._private.authentication.authentication_token_setup import (
        maybe_enable_token_auth_if_token_available,
    )
    from ray._private.services import canonicalize_bootstrap_address_or_die

    # As `ray.init` does for a cluster that it finds by itself.
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        return str(canonicalize_bootstrap_address_or_die("auto"))
    except ConnectionError as error:
        cause = str(error).split(".")[0]
        remedy = "set it to host:port of the head, or unset it to run on this machine alone"
        _refuse(f"finds no cluster ({cause})", remedy)


def _has_token() -> bool:
    """Whether Ray would find a token. Ray's own reader aborts the process when the file is absent."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else _token_file()
    return file.is_file() and os.access(file, os.R_OK) and bool(file.read_text().strip())


def asks_for_token() -> bool:
    """Whether the head that RAY_ADDRESS names refuses callers without a token, or without a certificate.

    Raises UserError like `reach`.
    """
    import grpc

    address = reach()
    if address is None or os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            ask(_check_alive().SerializeToString(), timeout=ANSWER_DEADLINE_S)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def _ask(address: str) -> str:
    """The version of Ray that the head at `address` runs."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2_grpc

    # With Ray's TLS and token, and like Ray without a proxy.
    channel = init_grpc_channel(address, [("grpc.enable_http_proxy", 0)])
    stub: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub
    try:
        return str(stub(channel).CheckAlive(_check_alive(), timeout=ANSWER_DEADLINE_S).ray_version)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            _refuse_token()
        cause = "an HTTP server answers" if "http1.x" in error.details() else f"no answer: {error.details()}"
        correct = "correct host:port (6379 if nothing else was chosen)"
        remedy = f"start the cluster, {correct}, or unset it to run on this machine alone"
        _refuse(f"no head of a Ray cluster is there ({cause})", remedy)
    finally:
        channel.close()


def _check_alive() -> Any:
    """The request message of Ray's liveness call, from generated code without types."""
    from ray.core.generated import gcs_service_pb2

    messages: Any = gcs_service_pb2
    return messages.CheckAliveRequest()


def _refuse_token() -> NoReturn:
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        _refuse("the cluster does not accept the token of this shell", _TOKEN_REMEDY)
    remedy = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
    _refuse("the cluster asks for a token, and this shell gives none", remedy)
