"""`layerfusion export` writes the classifier of a job in a form that other libraries load."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from layerfusion.assets.staging import write_new_folder
from layerfusion.commands.arguments import ArgumentParser
from layerfusion.commands.classifier import (
    add_classifier,
    job_folder,
    open_classifier,
    user_modules,
)
from layerfusion.commands.predict import add_reading, has_text, texts_in
from layerfusion.errors import UserError, unknown
from layerfusion.export import ONNX, TARGETS


def main(arguments: Sequence[str]) -> int:
    """Export a classifier.

    Returns:
        0 for success.

    Raises:
        UserError: for an unknown target, a folder that is not empty, a damaged classifier, or one
            that cannot be exported; and for one of the hub without a folder to write.
    """
    options = _parser().parse_args(arguments)
    if options.to not in TARGETS:
        raise unknown("--to", options.to, TARGETS)
    if options.to != ONNX and (options.int8 or options.texts):
        raise UserError(f"--int8, --texts: they are for --to {ONNX} alone")
    if options.texts and not options.int8:
        raise UserError("--texts: it is what --int8 is compared on; add --int8, or leave it out")
    job = job_folder(options.bundle)
    output = _output(job, options)
    modules = user_modules(options.config_dir)
    bundle = open_classifier(options, modules, "cpu")
    texts = None
    if options.texts:
        table = texts_in(options.texts, options, bundle, modules)
        texts = [text for text in table.texts if has_text(text)]
        if not texts:
            raise UserError(f"--texts {options.texts}: it holds no text")
    said: list[str] = []

    def write(folder: Path) -> None:
        from layerfusion.export.targets import write_target

        said.extend(write_target(bundle, job, options.to, folder, int8=options.int8, texts=texts))

    write_new_folder(output, write)
    for line in said:
        print(line)
    print(f"exported: {output}")
    return 0


def _output(job: Path | None, options: Namespace) -> Path:
    """Return the folder to write: the one that the user names, or one in the folder of the job."""
    if options.output:
        return Path(options.output)
    if job is None:
        raise UserError(f"{options.bundle}: --output FOLDER is needed, as no job of it lies here")
    return job / options.to


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "layerfusion export",
        description="Write the classifier of a job, with its models cut above the highest layer"
        " that it uses, as a folder that another library loads without LayerFusion.",
    )
    add_classifier(parser, device=False)
    parser.add_argument("--to", required=True, metavar="|".join(TARGETS))
    parser.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        help="a new folder; by default JOB/TARGET (needed for hub:…)",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="onnx: write the weights of the models in 8 bits, and print what that costs",
    )
    parser.add_argument(
        "--texts",
        metavar="FILE",
        help="onnx: texts to compare 8 bits on, if the job's test rows are not at hand",
    )
    add_reading(parser)
    return parser
