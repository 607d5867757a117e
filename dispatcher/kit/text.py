"""The kit's templates, as the document and the receivers are written from them."""

from collections.abc import Callable, Mapping
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


def fill(name: str, values: Mapping[str, object]) -> str:
    """The text of the template with these values. A page escapes them; elsewhere each goes through a filter."""
    return _templates().get_template(f"{name}.j2").render(values)


def filters(more: Mapping[str, Callable[..., str]]) -> None:
    """Makes filters known; before the first text is written."""
    _templates().filters.update(more)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("dispatcher.kit"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
    )
