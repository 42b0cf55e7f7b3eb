"""The commands, and what they share. Only here does the package parse arguments and print.

X_command        the command X: `parser()` and `main(args)`; the script X.py at the top level calls them
console_script   `darkslim train ...`, where the package was installed
flags            parsers: flags out of settings, common flags, types for flags of one's own
run              one way to run a command: exit codes, one line an error, `--json` with its envelope
console          what a person at a terminal sees: bars, the table of epochs

A command is a parser, settings, a call into darkslim/pipelines, and what is printed:

    def main(args) -> dict:              # returns what `--json` writes
        result = train(settings(TrainSettings, args), Console(), stop)
    if __name__ == "__main__":
        raise SystemExit(commands.run(main, parser()))
"""

from .console import Console, progress
from .flags import count, fraction, options_parser, parser, quantity, settings
from .run import run, script

__all__ = [
    "Console",
    "count",
    "fraction",
    "options_parser",
    "parser",
    "progress",
    "quantity",
    "run",
    "script",
    "settings",
]
