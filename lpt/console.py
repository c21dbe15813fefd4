"""Text from elsewhere on a console: shown as it stands, whatever it holds."""

from __future__ import annotations

import re

from rich.text import Text

# Those that move the cursor or cannot be encoded; not line breaks and tabs.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def as_it_is(text: object, style: str = "") -> Text:
    """Text for a console, a table's cell or a title.

    A string would be read as rich's markup, in which `[/x]` is an error, and `:100:` in
    `train.tsv:100: bad label` an emoji. Control characters are shown by their escapes.

    Args:
        text: What to show.
        style: How.
    """
    return Text(_CONTROL.sub(lambda found: repr(found[0])[1:-1], str(text)), style)
