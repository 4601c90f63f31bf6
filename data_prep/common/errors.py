"""The one way in which the command-line programs report bad input."""

import sys
from collections.abc import Callable


class InputError(Exception):
    """Bad input, in one line that names the thing and the remedy."""


def run_main(main: Callable[[], object]) -> None:
    """Run a program's ``main``. An ``InputError`` ends the program: its line on stderr, exit code 1, no traceback.

    Ctrl-C ends the program with exit code 130, as in a shell.
    """
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
