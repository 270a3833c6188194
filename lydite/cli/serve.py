"""`lydite serve`: a model behind the OpenAI protocol on this machine."""

import os
import socket
import sys
from typing import Annotated

import typer

from lydite.cli.options import parse_set
from lydite.cli.progress import Bar
from lydite.errors import UserError
from lydite.report.text import one_line


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for evaluate: short name, hub name, folder ...")],
    host: Annotated[str, typer.Option(help="Address to listen on; others than 127.0.0.1 let other machines in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto (as stored).")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")] = "cpu",
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Decoding that requests leave out (max_new_tokens, temperature ...), and settings of the model.",
        ),
    ] = [],  # noqa: B006
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that a hub checkpoint brings along.")
    ] = False,
) -> int:
    """Serve a model at /v1/completions, /v1/chat/completions and /v1/models, on this machine only.

    `lydite serve smollm2-135m-instruct --port 8000`
    """
    options = parse_set(set_)
    settings, decoding = options.pop("model"), options.pop("decoding")
    if options:
        raise UserError(f"--set {next(iter(options))} says nothing to a server; it takes decoding and model settings")
    _check_free(host, port)
    with Bar() as bar, bar.loading(model) as on_progress:
        from lydite.models import load_model

        loaded = load_model(
            model,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            settings=settings,
            on_progress=on_progress,
        )
    if loaded.info.family != "causal":
        raise UserError(f"{model} is a {loaded.info.family} model; only causal models of this machine can be served")
    from lydite.engine.live import Live
    from lydite.models.causal import CausalModel
    from lydite.serve.http import Server
    from lydite.serve.service import Service

    assert isinstance(loaded, CausalModel)
    live = Live(loaded.generator)
    try:
        with Server(Service(live, loaded.info, decoding), host, port, os.environ.get("LYDITE_API_KEY", "")) as server:
            print(f"serving {one_line(loaded.info.name)} on {server.url}; Ctrl-C ends it", flush=True)
            try:
                server.serve_forever(poll_interval=0.1)
            except KeyboardInterrupt:
                print("lydite: the server has ended", file=sys.stderr)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    finally:
        live.close()
    return 0


def _check_free(host: str, port: int) -> None:
    """Raises UserError, before a model is loaded, where another program listens there."""
    try:
        # As the server itself does: an address that was left a moment ago is free.
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> UserError:
    return UserError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port")
