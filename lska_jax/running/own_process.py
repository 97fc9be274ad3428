"""Whether this process is ours: started by a command line of this project, and watched by nobody.

A notebook's kernel, a debugger, a test runner and a program that embeds Python are not: they are
neither restarted nor ended, and keep their handlers of signals. Only cheap modules are imported,
since signals are held right after.
"""

import os
import sys

_SCRIPTS = ("lska-jax", "train.py", "eval_robustness.py")
_PACKAGES = ("lska_jax", "benchmarks")


def is_own_process() -> bool:
    """Tell whether a command line of this project started this process, and nobody watches it."""
    # From Python 3.12 on debuggers may use sys.monitoring and leave no trace function.
    monitoring = getattr(sys, "monitoring", None)
    is_watched = sys.gettrace() is not None or (
        monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None
    )
    if is_watched or not sys.executable:
        return False
    kind, program = _program(sys.orig_argv)
    if kind == "module":
        return program.partition(".")[0] in _PACKAGES
    return kind == "script" and os.path.basename(program) in _SCRIPTS


def _program(command_line: list[str]) -> tuple[str, str]:
    """Return what an interpreter was told to run: ("module" or "script", name), or ("", "")."""
    words = iter(command_line[1:])
    for word in words:
        if word == "--check-hash-based-pycs":
            next(words, "")
        elif word == "--":
            return "script", next(words, "")
        elif not word.startswith("-"):
            return "script", word
        elif not word.startswith("--"):
            # One-letter options, together; those with a value take the rest or the next word.
            for place, letter in enumerate(word[1:], 2):
                if letter in "cmWX":
                    value = word[place:] or next(words, "")
                    if letter in "cm":
                        return ("module", value) if letter == "m" else ("", "")
                    break
    return "", ""
