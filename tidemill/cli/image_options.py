"""The options that name the images of the steps, for the commands `compile` and `run`."""

from __future__ import annotations

import argparse

from tidemill.local.images import Images, named_images


def images(args: argparse.Namespace) -> Images:
    """Returns the images that the options name.

    Raises:
        TidemillError: `invalid-value` for a digest that is none.
    """
    digests = dict(text.partition("=")[::2] for text in args.digest)
    return named_images(args.images, args.tag, digests=digests, cpu_only=args.cpu_only)


def given(args: argparse.Namespace) -> list[str]:
    """Returns the options that were given, as they are written."""
    options = ("images", "tag", "digest", "cpu_only")
    return [f"--{option.replace('_', '-')}" for option in options if getattr(args, option)]
