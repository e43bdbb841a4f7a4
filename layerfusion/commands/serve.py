"""`layerfusion serve` answers requests for labels and probabilities over HTTP."""

from __future__ import annotations

import logging
import math
import signal
import socket
import sys
from collections.abc import Sequence
from errno import EACCES, EADDRINUSE
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_address

from layerfusion.commands.arguments import ArgumentParser
from layerfusion.commands.classifier import add_classifier, open_classifier, user_modules
from layerfusion.errors import UserError, one_line
from layerfusion.serving.batching import Limits

NEEDS = ("fastapi", "uvicorn", "prometheus_client")
PORT, MOST_PORT = 8000, 65535
KEEP = 75
"""Seconds that an idle connection stays open; proxies reuse theirs for about a minute."""
DRAIN = 30
"""Seconds that requests get to be answered when the server is stopped."""


def main(arguments: Sequence[str]) -> int:
    """Serve a classifier until the process is told to stop.

    Returns:
        0, when it was stopped and has answered the requests that it had accepted.

    Raises:
        UserError: for a damaged classifier, a missing model, a port that cannot be had, or a limit
            that is out of range.
    """
    options = _parser().parse_args(arguments)
    limits = Limits(
        max_texts=options.max_texts,
        max_characters=options.max_characters,
        max_bytes=options.max_bytes,
        max_batch=options.max_batch,
        max_wait=options.max_wait / 1000,
        max_queue=options.max_queue,
        max_delay=options.max_delay,
        deadline=options.deadline,
    )
    for name in vars(limits):
        value, from_zero = getattr(options, name), name == "max_wait"
        if not (0 < value < math.inf or (value == 0 and from_zero)):
            needed = "from 0 on" if from_zero else "above 0"
            raise UserError(f"--{name.replace('_', '-')} {value}: a number {needed} is needed")
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise UserError(f"serve: needs {missing[0]}; pip install 'layerfusion[serve]'")
    bundle = open_classifier(options, user_modules(options.config_dir), options.device)
    listening = _listen(options.host, options.port)

    import uvicorn

    from layerfusion.serving.app import Classifier, make_app

    failures: list[UserError] = []

    def failed(error: UserError) -> None:
        failures.append(error)
        server.should_exit = True

    # What of the tokens a model does not know would be told anew for every request.
    logging.getLogger("layerfusion.embeddings.tokens").setLevel(logging.ERROR)
    classifier = Classifier(
        bundle.label_names,
        str(bundle.facts.get("job", "")),
        # A server of vectors that is asked again and again holds up all other requests.
        partial(bundle.probabilities, seconds=limits.deadline),
        multilabel=bundle.multilabel,
    )
    config = uvicorn.Config(
        make_app(classifier, limits, failed),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=DRAIN,
        timeout_keep_alive=KEEP,
        server_header=False,
    )
    server = uvicorn.Server(config)
    # Uvicorn raises a signal again after its last answer. These handlers take it, so that we end
    # with 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"serving on http://{shown}:{port} (documentation: /docs)", flush=True)
    if not ip_address(host).is_loopback:
        print(
            f"note: {host} can be reached from other machines, and there is no password and no"
            " encryption; put a proxy in front of it that has both",
            file=sys.stderr,
        )
    server.run(sockets=[listening])
    if failures:
        raise failures[0]
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Open the port.

    Raises:
        UserError: if it is taken, or the host is not one of this machine.
    """
    if not 0 <= port <= MOST_PORT:
        raise UserError(f"--port {port}: a port has a number from 0 to {MOST_PORT}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family)
        # Connections take this from here. Without it, the end of an answer that is written in two
        # parts waits about 40 ms for the client's word on the first.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except UnicodeError as error:
        raise UserError(f"--host {host}: it is no name of a host ({one_line(error)})") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        other = "--host 127.0.0.1"
        if error.errno == EADDRINUSE:
            other = f"--port {port + 1 if port < MOST_PORT else port - 1}"
        elif error.errno == EACCES:
            other = f"--port {PORT}"
        raise UserError(
            f"--host {host} --port {port}: {reason}; choose another, such as {other}"
        ) from error


def _parser() -> ArgumentParser:
    usual = Limits()
    parser = ArgumentParser(
        "layerfusion serve",
        description="Answer requests for labels and probabilities over HTTP: POST /predict"
        ' {"texts": [...]}, GET /health, GET /metrics, GET /docs.',
    )
    add_classifier(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address; by default of this machine")
    parser.add_argument("--port", type=int, default=PORT, help="0 takes any free one")
    for name, kind, what in (
        ("max-texts", int, "most texts of a request"),
        ("max-characters", int, "most characters of a text"),
        ("max-bytes", int, "most bytes of the body of a request"),
        ("max-batch", int, "texts that pass the models together"),
        ("max-wait", float, "milliseconds that a text waits for company"),
        ("max-queue", int, "most texts that wait; then 503"),
        ("max-delay", float, "most seconds that a text may be expected to wait; then 503"),
        ("deadline", float, "seconds after which a request is given up"),
    ):
        value = getattr(usual, name.replace("-", "_"))
        value = value * 1000 if name == "max-wait" else value
        parser.add_argument(f"--{name}", type=kind, default=value, help=f"{what} ({value:.12g})")
    return parser
