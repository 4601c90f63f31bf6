"""Text from models and programs as a terminal or a page may show it."""

import unicodedata

_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format (bidirectional overrides too), surrogates, separators


def printable(text: str) -> str:
    """``text`` with the characters that could steer a terminal or reorder a line as escapes such as ``\\x1b``.

    Line feeds and tabs stay.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(char: str) -> str:
    if char in "\n\t" or unicodedata.category(char) not in _STEERING:
        return char
    return char.encode("unicode_escape").decode()
