"""The command line, `layerfusion COMMAND …`. Heavy imports wait until the command is known."""

from __future__ import annotations

import io
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType, TracebackType

from layerfusion.config.imports import import_object
from layerfusion.config.secrets import redact_line, shown
from layerfusion.errors import UserError, naming_extras, unknown

USAGE = """\
Which layers of which frozen language models carry the signal for your texts?

usage: layerfusion COMMAND [...]

  plan       show what a job would cost before it runs: texts, tokens, FLOPs, bytes, minutes
  extract    pass the texts through the models once and cache every layer
  profile    compute every score of every layer, and the layers that each selection would take
  train      train a head on cached layers; a sweep with -m
  predict    JOB INPUT: classify new texts with the classifier that a job left
  export     JOB --to TARGET: write the classifier of a job for transformers, sentence-transformers
             or onnx, which load it without LayerFusion
  push       JOB OWNER/NAME: send the classifier of a job to the Hugging Face hub
  pull       OWNER/NAME: fetch one from there
  serve      JOB: answer requests for labels and probabilities over HTTP
  search     search for the best head and layers with Optuna; the same command resumes a study
  status     DIR: show the jobs of a sweep that are done, failed, running or missing, and the time
             left
  results    DIR: rank the finished jobs under DIR in a table; --csv for all columns
  errors     JOB: show where a job's classifier errs: by class, by confidence, with the texts
  drift      JOB INPUT: show whether new texts are of the kind that a classifier was judged on
  report     DIR: write tables, figures and one HTML page about the jobs under DIR
  dashboard  DIR: create a W&B workspace and report; without a key, open the report in the browser
  reproduce  run the whole comparison, downloads included, and write a report
  cache      ls | verify | compact | gc | export: look after the cached embeddings

  explain    WORD: what a key, a group, an option or a word of these pages means
  completion bash | zsh | fish: print what completes commands, groups, options and keys

  layerfusion train reviews.csv
  layerfusion train rotten_tomatoes 'backbone=[minilm,smollm2]' layers=all fusion=gated
  layerfusion train -m dataset=r8,sms_spam layers=last,all
`layerfusion train --help` lists the data sets, models, selections and fusions."""


COMMANDS = {
    "plan": "layerfusion.commands.hydra_jobs:plan",
    "extract": "layerfusion.commands.hydra_jobs:extract",
    "profile": "layerfusion.commands.hydra_jobs:profile",
    "train": "layerfusion.commands.hydra_jobs:train",
    "predict": "layerfusion.commands.predict:main",
    "export": "layerfusion.commands.export:main",
    "push": "layerfusion.commands.hub:push",
    "pull": "layerfusion.commands.hub:pull",
    "serve": "layerfusion.commands.serve:main",
    "search": "layerfusion.commands.search:main",
    "status": "layerfusion.commands.status:main",
    "results": "layerfusion.commands.reports:results",
    "errors": "layerfusion.commands.errors:main",
    "drift": "layerfusion.commands.drift:main",
    "report": "layerfusion.commands.reports:report",
    "dashboard": "layerfusion.commands.reports:dashboard",
    "reproduce": "layerfusion.commands.reproduce:main",
    "cache": "layerfusion.commands.cache:main",
    "explain": "layerfusion.commands.help:explain",
    "completion": "layerfusion.commands.completion:main",
}
"""Command to the function that takes the words after it and returns the exit code."""
COMPOSED = ("plan", "extract", "profile", "train", "search", "reproduce")
"""Commands whose config Hydra composes; their help needs neither Hydra nor torch."""

OF_THE_HOME = ("MPLCONFIGDIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")
"""Variables of the folders that matplotlib and W&B have in the home if nothing else is said."""
MEMORY = "/dev/shm"
"""Folder that can mostly be written where no disk can."""


_stopped_by: int = signal.SIGINT
"""The signal that ends the command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 for success, 1 if a job of a sweep failed, 2 for a mistake in the command or a place that
        cannot be read or written; 130 after Ctrl-C, and 143 after SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        sys.argv[1:] = map(redact_line, words)  # W&B keeps them with a run
        sys.excepthook = _print_traceback
        signal.signal(signal.SIGTERM, _terminate)
        _have_streams()
    # Before torch starts: its threads then sleep while they wait for each other. Threads that spin
    # keep the one that they wait for from running, wherever another process is busy too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _give_others_a_place()
    # A line of a log that a full disk cannot take is lost without a traceback; the command tells of
    # the disk itself.
    logging.raiseExceptions = False
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it tells that it has listed fonts
    try:
        if _tell(words):
            return 0
        if words[0] not in COMMANDS:
            raise unknown("command", words[0], COMMANDS)
        if words[0] in COMPOSED and {"-h", "--help"} & {*words[1:]}:
            from layerfusion.commands.help import print_help

            return print_help(words[0], words[1:])
        with naming_extras():
            return import_object("command", COMMANDS[words[0]])(words[1:])
    except UserError as error:
        print(f"layerfusion: {shown(_line(error, words))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has left, as in `layerfusion train --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        from layerfusion.assets.files import in_one_line, is_shown_in_one_line

        if not is_shown_in_one_line(error):
            raise
        print(f"layerfusion: {shown(in_one_line(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        said = "stopped; what was finished is kept, the same command goes on"
        print(f"layerfusion: {said}", file=sys.stderr)
        return 128 + _stopped_by


def _terminate(number: int, _frame: FrameType | None) -> None:
    """Let SIGTERM end a command as Ctrl-C does: what is open is closed, and a line says so."""
    global _stopped_by
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    _stopped_by = number
    raise KeyboardInterrupt


def _tell(words: Sequence[str]) -> bool:
    """Print what needs no command: the usage, the version, words that complete a line."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE)
    elif words[0] in ("-V", "--version"):
        from layerfusion import __version__

        print(__version__)
    elif words[0] == "--complete":
        from layerfusion.commands.completion import complete

        for word in complete(" ".join(words[1:]), [*COMMANDS], COMPOSED):
            print(word)
    else:
        return False
    sys.stdout.flush()
    return True


def _have_streams() -> None:
    """Replace closed streams, and write what an encoding lacks by the numbers of characters."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # as after `>&-`; the file takes the free number
            nowhere = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115  # until the end
            setattr(sys, name, nowhere)
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _line(error: UserError, words: Sequence[str]) -> str:
    """Write an error in one line; with the whole command that mends it, where there is one."""
    line = " ".join(str(error).split())
    if not error.options:
        return line
    keys = [shlex.split(option)[0].partition("=")[0] for option in error.options]
    kept, words = [], [*words]
    while words:
        word = words.pop(0)
        if word in keys and word.startswith("-"):  # an option and its value are two words
            words = words[1:]
        elif word.lstrip("+").partition("=")[0] not in keys:
            kept.append(word)
    end = "" if line.endswith("?") else ":"
    return f"{line}{end} {shlex.join(['layerfusion', *kept])} {' '.join(error.options)}"


def _give_others_a_place() -> None:
    """Let libraries that keep files in the home do so in a temporary folder, if it takes none.

    Each would say so in lines of its own, some of them a dozen, though nothing is lost with them.
    """
    home = os.path.expanduser("~")
    places = (os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config"), home)
    place = next((one for one in places if os.path.isdir(one)), None)
    unset = [name for name in OF_THE_HOME if name not in os.environ]
    if not unset or (place is not None and os.access(place, os.W_OK)):
        return
    import atexit
    import shutil
    import tempfile

    try:
        tempfile.gettempdir()
    except FileNotFoundError:  # as in a container whose disk is read-only
        # Libraries ask for it when they are imported, whether they will write there or not.
        tempfile.tempdir = MEMORY if os.access(MEMORY, os.W_OK) else os.getcwd()
    try:
        folder = tempfile.mkdtemp(prefix="layerfusion-")
    except OSError:
        return
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(dict.fromkeys(unset, folder))


def _print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print what Python would, without the keys in it."""
    lines = traceback.format_exception(kind, error, trace)
    print(redact_line("".join(lines)), end="", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
