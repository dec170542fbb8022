"""`vocabtransfer serve`: a Hydra behind OpenAI's HTTP interface."""

import logging
import os
from pathlib import Path
from typing import Any

import typer

from vocabtransfer.errors import UsageError, VocabTransferError

from .arguments import DEVICE
from .generate import dtype_settings
from .output import JSON_OPTION, print_json, quiet_transformers

KEY_VARIABLE = "VOCABTRANSFER_API_KEY"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    model: str = typer.Argument(..., help="A Hydra, or any causal checkpoint: folder, alias or hub id."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on; others than this machine's own need care."),
    port: int = typer.Option(8000, min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    name: str | None = typer.Option(None, help="What clients call the model [default: the folder's name]."),
    dtype: str = typer.Option("auto", help="float32, bfloat16, float16, or auto: as stored."),
    device: str | None = DEVICE,
    head_budget: int | None = typer.Option(None, min=1, help="Megabytes that loaded heads may take together."),
    max_rows: int = typer.Option(16, min=1, help="Requests generated together."),
    max_queue: int = typer.Option(64, min=0, help="Requests that may wait; more are refused with 429."),
    max_prompt_tokens: int = typer.Option(4096, min=1, help="Longest prompt."),
    max_tokens: int = typer.Option(1024, min=1, help="Longest answer."),
    max_body_bytes: int = typer.Option(1 << 20, min=1, help="Largest request."),
    rate: str = typer.Option("600/minute", help="Requests a client may send, such as 10/second, or none."),
    max_choices: int = typer.Option(64, min=1, help="Most answers (prompts times n) of one request."),
    allow_host: list[str] = typer.Option([], help="Another name this server is asked by, or *; may be repeated."),
    allow_origin: list[str] = typer.Option([], help="Origin of a web page that may ask, or *; may be repeated."),
    timeout: float = typer.Option(300.0, min=0.1, help="Seconds from a request's arrival to its last token."),
    patience: float = typer.Option(60.0, min=0.0, help="Seconds to finish running requests when stopped."),
    as_json: bool = JSON_OPTION,
) -> None:
    """Serve all heads of a Hydra: /v1/completions, /v1/chat/completions, /v1/models, /health and /metrics.

    `model` in a request is the model's name, NAME:HEAD or HEAD; `"head": "tatar"` or `"head": {"input": "english",
    "output": "tatar"}` choose too. Requests sent to another name than this machine's, or by a web page, are refused
    unless --allow-host or --allow-origin names it. With VOCABTRANSFER_API_KEY in the environment, requests need that
    key. SIGTERM or Ctrl-C finishes what runs, then stops.

    Example: `vocabtransfer serve hydra --port 8000`
    """
    try:
        from limits import parse

        from vocabtransfer.serving.app import create_app
        from vocabtransfer.serving.server import Server, listen, run_server
        from vocabtransfer.serving.visitors import Visitors
    except ImportError as missing:
        raise VocabTransferError(
            f"serving needs {missing.name}, which is not installed: pip install 'vocabtransfer[serve]'."
        ) from None
    from vocabtransfer.hydra import HydraForCausalLM
    from vocabtransfer.serving import Engine, Limits

    quiet_transformers()
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        wanted_rate = None if rate == "none" else rate
        parse(wanted_rate or "1/second")
    except ValueError:
        raise UsageError(f"--rate is a number and a time such as 10/second, or none, not {rate!r}.") from None
    visitors = Visitors(host, allow_host, allow_origin)
    settings = {**dtype_settings(dtype, device), "head_budget": head_budget * 10**6 if head_budget else None}
    place = listen(host, port)
    with place:
        hydra = HydraForCausalLM.from_pretrained(model, **settings)
        limits = Limits(
            rows=max_rows,
            queue=max_queue,
            prompt_tokens=max_prompt_tokens,
            new_tokens=max_tokens,
            body_bytes=max_body_bytes,
            seconds=timeout,
            choices=max_choices,
            rate=wanted_rate,
        )
        engine = Engine(hydra, limits)
        called = name or _name_of(model)
        key = os.environ.get(KEY_VARIABLE) or None
        app = create_app(engine, called, api_key=key, visitors=visitors)
        address = f"[{host}]" if ":" in host else host
        facts = {"url": f"http://{address}:{place.getsockname()[1]}", "model": called, "heads": list(hydra.heads)}
        _announce(facts, host, key, as_json)
        run_server(Server(app, engine, patience=patience), place)


def _name_of(model: str) -> str:
    return Path(model).expanduser().resolve().name if Path(model).expanduser().exists() else model


def _announce(facts: dict[str, Any], host: str, key: str | None, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        typer.echo(f"{facts['model']} with {', '.join(facts['heads'])} at {facts['url']}")
    if host not in LOOPBACK and key is None:
        typer.echo(f"Anybody who can reach {host} may use it: set {KEY_VARIABLE} to ask for a key.", err=True)
