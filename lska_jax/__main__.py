"""``lska-jax COMMAND`` and ``python -m lska_jax COMMAND``: one entry for all commands."""

import sys
from collections.abc import Sequence

from lska_jax.running import door

# Every module has main(argv); it is imported when its command is called, and not before.
COMMANDS = {
    "Train and evaluate": {
        "train": "train a model from a config, or resume a run",
        "evaluate": "evaluate a checkpoint of a run",
        "find-rate": "try learning rates for a run",
        "robustness": "measure models on corrupted and shifted image sets",
        "report": "write a page about training runs, or about results of robustness",
        "predict": "classify images with a model",
        "explain": "draw what a model looks at, and how far it sees",
        "demo": "serve a page to play with a model on",
    },
    "Models and weights": {
        "import": "turn a PyTorch checkpoint into a model folder",
        "weights": "list published weights, and fetch them",
        "publish": "turn a run into a model folder, here or on the Hub",
        "average": "average the weights of several models",
        "transfer": "carry a VAN's weights over to another kernel size or attention",
        "export": "write a model for PyTorch, as jax.export or as ONNX",
    },
    "Data and hardware": {
        "prepare": "prepare data sets, ImageNet among them, without TensorFlow",
        "bench": "measure how fast a source delivers images",
        "compile-check": "compile a config's steps for devices that are not here",
    },
}
# They stop at a signal, save and can be resumed.
_RESUMABLE = ("train", "evaluate", "robustness")
_MODULES = {"import": "convert"}
_USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; mistakes are status 2.

    Args:
      argv: without the program's name; None takes this program's, and its process for one's own.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    name = words[0] if words else ""
    is_program = argv is None and not {"-h", "--help"} & set(words)
    if is_program and name in _RESUMABLE:
        # Before anything else: a preempted machine does not wait for imports.
        door.hold_signals()
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        import lska_jax

        print(f"lska-jax {lska_jax.__version__}")
        return 0
    if name not in {name for group in COMMANDS.values() for name in group}:
        return _refuse(name)
    import importlib

    module = _MODULES.get(name, name.replace("-", "_"))
    if is_program and name in ("predict", "explain", "demo"):
        door.settle()
    # Before the import: a restart would only do it again.
    options = {"signals": door.enter()} if is_program and name in _RESUMABLE else {}
    return importlib.import_module(f"lska_jax.commands.{module}").main(words[1:], **options)


def _help() -> str:
    lines = [
        "usage: lska-jax COMMAND ...",
        "",
        "Large Separable Kernel Attention and the Visual Attention Network in JAX.",
    ]
    for title, commands in COMMANDS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:<14} {summary}" for name, summary in commands.items()]
    lines += [
        "",
        "lska-jax COMMAND --help shows the options of a command, with examples.",
        "lska-jax --version shows the version.",
        "",
        "examples:",
        "  lska-jax predict cifar10 photo.jpg",
        "  lska-jax train --config digits",
        "  lska-jax publish runs/digits --out digits_model",
        "  lska-jax predict digits_model digit.png",
    ]
    return "\n".join(lines)


def _refuse(name: str) -> int:
    if not name:
        print(f"{_help()}\n\nError: No command was given.", file=sys.stderr)
        return _USAGE_ERROR
    import difflib

    names = [name for group in COMMANDS.values() for name in group]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    print(
        f"Error: There is no command {name!r}.{hint} Allowed: {', '.join(names)}.",
        file=sys.stderr,
    )
    return _USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
