"""The console entry point `tidemill`.

Python prints a traceback if Ctrl-C is pressed while it imports modules. So this module imports only what costs
nothing, and the other modules of a command are imported while Ctrl-C ends the process at once.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidemill.errors import TidemillError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The arguments. Defaults to those of the process.

    Returns:
        The exit code: 0, 2 for a user error, 130 after Ctrl-C, 1 for any other failure.
    """
    before = _handle_ctrl_c(_exit_at_once)
    from tidemill.cli.parser import read_command
    from tidemill.errors import TidemillError, from_system_error

    pressed: list[int] = []

    def interrupt(signum: int, frame: object) -> None:
        pressed.append(signum)
        raise KeyboardInterrupt

    try:
        command = read_command(argv)
        _handle_ctrl_c(interrupt)
        return command()
    except TidemillError as error:
        return _stopped() if pressed else _refused(error)
    except KeyboardInterrupt:
        return _stopped()
    except BrokenPipeError:
        # The reader of the pipe, such as `head`, has exited. Without this, Python fails again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if pressed:  # DuckDB raises an error of its own
            return _stopped()
        if mistake := from_system_error(error):
            return _refused(mistake)
        raise
    finally:
        # The result is out. While Python ends, Ctrl-C would print a traceback.
        _handle_ctrl_c(signal.SIG_DFL if argv is None else before)


def _handle_ctrl_c(handler: object) -> object:
    """Sets the handler of SIGINT and returns the one before. Only the main thread may do so, and only it is asked to.

    The handler that does nothing, which background jobs of a shell have, stays.
    """
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        return signal.SIG_IGN
    try:
        return signal.signal(signal.SIGINT, handler)  # type: ignore[arg-type]
    except ValueError:
        return handler


def _exit_at_once(signum: int, frame: object) -> None:
    os.write(2, b"stopped\n")
    os._exit(128 + signum)


def _stopped() -> int:
    print("stopped", file=sys.stderr)
    return 128 + signal.SIGINT


def _refused(error: TidemillError) -> int:
    from tidemill.errors import EXIT_CODE

    print(f"error [{error.code.code}] {error}", file=sys.stderr)
    return EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())
