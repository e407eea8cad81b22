"""The ``tfp-vae`` command: parse, call, print.

TensorFlow is imported by the commands that need it, so that ``--help`` answers at once. Results go
to standard output, messages to standard error. Exit codes: 0, 1 for what went wrong while working,
2 for a command line that makes no sense, 130 after Ctrl-C (of `explore` 0, which it ends).
"""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from tfp_vae.cli import commands, interrupts
from tfp_vae.cli.arguments import parser

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)
    # TensorFlow's remarks on the processor are for those who build it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            with interrupts.insistent():
                if options.run is not commands.recipes:  # which needs no TensorFlow
                    # Before anything imports Keras: it refuses another backend than TensorFlow.
                    from tfp_vae import _support  # noqa: F401

                options.run(options)
                sys.stdout.flush()
        except commands.UsageError as error:
            print(f"tfp-vae: error: {error}", file=sys.stderr)
            return 2
        except BrokenPipeError:
            # The reader went away, as `head` does; Python would complain once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (ImportError, OSError, TypeError, ValueError, NotImplementedError) as error:
            # Keras' messages go on over several lines; the first says what is wrong.
            said = str(error) or type(error).__name__
            print(f"tfp-vae: error: {said.splitlines()[0]}", file=sys.stderr)
            return 1
        except Exception as error:
            # By its name: TensorFlow has a class of its own, and may not be imported.
            if type(error).__name__ not in ("MemoryError", "ResourceExhaustedError"):
                raise
            said = (str(error) or "none is left").splitlines()[0]
            print(f"tfp-vae: error: not enough memory: {said}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("tfp-vae: stopped.", file=sys.stderr)
            return 130
    return 0


def _show_warning(message: Any, category: Any, *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"tfp-vae: note: {message}", file=sys.stderr)
