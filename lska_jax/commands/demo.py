"""``lska-jax demo``: a page on this machine to play with a model on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lska_jax.commands import frame

_DESCRIPTION = """\
Serve a page to play with a model on: drop a photo, see the five best classes and what the network
looks at (Grad-CAM, the gate of any block, attention rollout), and move a slider over the severities
of the 19 corruptions of ImageNet-C. Ctrl-C ends it.

It listens on this machine alone, unless --host names another address: then whoever reaches that
address can use the model."""

_EXAMPLES = (
    "lska-jax demo lska_35",
    "lska-jax demo runs/flowers --port 7860",
    "lska-jax demo convnext_tiny.fb_in1k",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _serve, argv)


def _serve(arguments: argparse.Namespace) -> None:
    from lska_jax.analysis.demo.looking import Looking
    from lska_jax.analysis.demo.server import is_loopback, make_server
    from lska_jax.analysis.photos import load_model
    from lska_jax.running.compilation_cache import use_compilation_cache

    use_compilation_cache()
    loaded = load_model(
        arguments.model,
        image_size=arguments.image_size,
        max_image_pixels=arguments.max_image_pixels,
        report=frame.remark,
    )
    if not loaded.network.config.num_classes:
        raise ValueError(f"{arguments.model} has no classifier: there are no classes to show.")
    looking = Looking(loaded)
    # Before anything is compiled: an address in use shows at once.
    with make_server(looking, host=arguments.host, port=arguments.port) as server:
        if not is_loopback(arguments.host):
            frame.remark(
                f"Whoever reaches {arguments.host} can use this model, without a password."
            )
        frame.remark("Compiling ...")
        looking.warm_up()
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        address = f"http://{host}:{server.server_address[1]}"
        print(f"{loaded.name} is at {address}. Ctrl-C ends it.", flush=True)
        if sys.stdout.isatty() and not arguments.no_browser:
            import webbrowser

            webbrowser.open(address)
        server.serve_forever()


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax demo", _DESCRIPTION, examples=_EXAMPLES)
    add = parser.add_argument
    add("model", metavar="MODEL", help=frame.MODEL_PLACES)
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default: 127.0.0.1)")
    add("--port", type=_port, default=7860, help="0 takes any (default: 7860)")
    size_help = "side of the images (default: as the model's are prepared)"
    add("--image_size", type=frame.positive(int), metavar="PIXELS", help=size_help)
    add("--no_browser", action="store_true", help="do not open the page in a browser")
    frame.add_max_image_pixels(parser)
    return parser


def _port(text: str) -> int:
    """Read the number of a port, as a type of options."""
    number = frame.whole_number(text)
    if number >= 2**16:
        raise ValueError
    return number


# argparse names it in its message.
_port.__name__ = "port"
