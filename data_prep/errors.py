"""The one way in which the command-line tools report bad input."""


class InputError(SystemExit):
    """Bad input, in one line that names the thing and the remedy.

    A subclass of ``SystemExit``: uncaught, Python prints the line to stderr and exits with code 1,
    without a traceback, and no ``except Exception`` swallows it.
    """
