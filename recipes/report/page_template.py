"""The templates of the HTML pages: each page is one file without any reference to another."""

from pathlib import Path

import jinja2


def page_environment() -> jinja2.Environment:
    """Loads the templates beside this file. Texts from data and models are hostile: all of them are escaped."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
