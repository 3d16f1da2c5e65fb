"""Header fields as objects: known names, and values that come again."""

from typing import final

KNOWN_NAMES: tuple[str, ...]

@final
class FieldMemo:
    """Fields that come again and again, as objects made once; for one loop.

    Credentials and values of more than 256 bytes are never kept.
    """

    def __new__(cls) -> FieldMemo: ...
