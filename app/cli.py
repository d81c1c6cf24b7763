"""The command `pullback`: serve, query, operations.

The settings, which take pydantic and with it half a second to import, are imported by `main`, where a command needs them: Ctrl-C meanwhile
ends it without a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app import __version__
from app.errors import EXIT_SETTINGS, PullbackError, ServiceError

if TYPE_CHECKING:
    from app.catalogue.entry import Operation
    from app.settings import Settings

# What a shell gives a command that Ctrl-C ended: 128 and the number of SIGINT.
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        chosen = _parser(serves="serve" in words).parse_args(words)
        status: int = chosen.run(chosen)
    except BrokenPipeError:
        # The reader of our output, such as `head`, has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except PullbackError as error:
        _complain(str(error), error.fix)
        return 1
    return status


def _parser(serves: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pullback", description="Answers gradient queries over HTTP.")
    parser.add_argument("--version", action="version", version=f"pullback {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="start the service",
        description="Start the service. Every setting is an environment variable and a flag; the flag counts.",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    if serves:
        _add_settings(serve)
    serve.set_defaults(run=_serve)

    query = commands.add_parser("query", help="answer a query from a file", description="Answer a query and print the answer.")
    query.add_argument("file", help="a query as .json, or a program as .py; - reads a JSON query from standard input")
    query.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a tensor: .npy, .npz, .safetensors, .csv, or numbers such as 'x=[1, 2]'; FILE alone gives its tensors by their names",
    )
    query.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="a plain value")
    query.add_argument("--want", action="append", default=[], metavar="KIND", help="outputs, gradient, vjp, jacobian, explain…")
    query.add_argument(
        "--wrt", action="append", default=[], metavar="NAME", help="an input to differentiate by; all by default"
    )
    query.add_argument("--seed", type=int, help="for random numbers and weights that are not sent")
    query.add_argument("--dtype", help="what is computed in: float64, float32…")
    query.add_argument("--url", "--server", help="send it to a running server; without this it is answered in this process")
    query.add_argument("--key", default=os.environ.get("PULLBACK_API_KEY"), help="API key for the server (PULLBACK_API_KEY)")
    query.add_argument("--json", action="store_true", help="print the answer as JSON")
    query.set_defaults(run=_query)

    operations = commands.add_parser(
        "operations",
        help="list operations, or show one",
        description="List the catalogue's operations, or show one by its name.",
    )
    operations.add_argument("search", nargs="?", default="", help="a name, or words in the name or the meaning")
    operations.set_defaults(run=_operations)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    from app.settings import Settings

    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else f" (default: {field.default})"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=f"PULLBACK_{name.upper()}{default}\n{field.description}".replace("%", "%%"),
        )


def _serve(chosen: argparse.Namespace) -> int:
    from app.main import serve
    from app.settings import Settings

    overrides = {name: value for name, value in vars(chosen).items() if name in Settings.model_fields}
    settings = _settings(overrides)
    if settings is None:
        return EXIT_SETTINGS
    try:
        serve(settings)
    except ServiceError as error:
        _complain(str(error))
        return error.exit_status
    return 0


def _settings(overrides: Mapping[str, Any]) -> Settings | None:
    """Those of the environment under these; None where one is wrong, which has been said."""
    from pydantic import ValidationError

    from app.settings import SECRETS, Settings, unknown_variables

    if unknown := unknown_variables(os.environ):
        for name, nearest in unknown.items():
            _complain(
                f"There is no setting {name}"
                + (f"; did you mean {nearest}?" if nearest else "; pullback serve --help lists all.")
            )
        return None
    try:
        return Settings(**overrides)
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else ""
            shown = "" if name in SECRETS else f", got {problem['input']!r}"
            _complain(f"PULLBACK_{name.upper()}: {problem['msg'].removeprefix('Value error, ')}{shown}")
        return None


def _query(chosen: argparse.Namespace) -> int:
    import orjson

    from app.printing import answer_text, problem_text
    from app.query_files import query_body

    settings = None if chosen.url else _settings({})
    if settings is None and not chosen.url:
        return EXIT_SETTINGS
    try:
        text = sys.stdin.buffer.read() if chosen.file == "-" else Path(chosen.file).read_bytes()
    except OSError as error:
        _complain(f"{chosen.file}: {error.strerror}")
        return 2
    body = query_body(
        text,
        is_program=chosen.file.endswith(".py"),
        inputs=chosen.input,
        parameters=chosen.parameter,
        want=[kind for listed in chosen.want for kind in listed.split(",")],
        wrt=[name for listed in chosen.wrt for name in listed.split(",")],
        seed=chosen.seed,
        dtype=chosen.dtype,
    )
    status, reply = _answer_here(body, settings) if settings else _ask_server(chosen.url, body, chosen.key)
    if chosen.json:
        sys.stdout.buffer.write(reply + b"\n")
        return 0 if status == 200 else 1
    content: Mapping[str, Any] = orjson.loads(reply)
    if status == 200:
        print(answer_text(content))
        return 0
    print(problem_text(content), file=sys.stderr)
    return 1


def _answer_here(body: bytes, settings: Settings) -> tuple[int, bytes]:
    from app.pool.worker import answer_alone

    return answer_alone(body, settings)


def _ask_server(url: str, text: bytes, key: str | None) -> tuple[int, bytes]:
    import httpx

    url = url if "://" in url else f"http://{url}"
    headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
    try:
        reply = httpx.post(f"{url.rstrip('/')}/v1/query", content=text, headers=headers, timeout=None)  # noqa: S113 - the server has the deadline
    except httpx.HTTPError as error:
        raise PullbackError("internal", f"{url} does not answer: {error}.", fix="Start a server by `pullback serve`.") from None
    return reply.status_code, reply.content


def _operations(chosen: argparse.Namespace) -> int:
    from app.catalogue import read

    known = read.operations().get(chosen.search)
    if known is not None:
        _show(known)
        return 0
    operations = read.search(chosen.search, None) if chosen.search else list(read.operations().values())
    width = max((len(operation.name) for operation in operations), default=0)
    for operation in operations:
        print(f"{operation.name:<{width}}  {operation.summary}")
    if not operations:
        _complain(f"No operation has {chosen.search!r} in its name or meaning.")
    return 0 if operations else 1


def _show(operation: Operation) -> None:
    """One operation: its signatures, what each argument means, its derivative."""
    print(f"{operation.name}: {operation.summary}")
    for signature in operation.signatures:
        parts = [a.name if a.required else f"{a.name}={a.default}" for a in signature.arguments]
        outputs = ", ".join(output.name for output in signature.outputs)
        print(f"\n  {operation.name}({', '.join(parts)}) -> {outputs}")
        for argument in signature.arguments:
            words = f"{argument.kind}{', differentiable' if argument.differentiable else ''}"
            print(f"    {argument.name:<16} {words}{f': {argument.meaning}' if argument.meaning else ''}")
    if operation.documentation:
        print(f"\n{operation.documentation}")


def _complain(message: str, fix: str | None = None) -> None:
    print(f"pullback: {message}", file=sys.stderr)
    if fix:
        print(fix, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
