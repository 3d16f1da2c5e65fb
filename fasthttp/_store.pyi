"""Where bodies are kept: in memory up to limits, then in files."""

from typing import final

from .config import Config

@final
class Store:
    """What all request bodies, and answers that wait on the disk, take."""

    def __new__(cls, config: Config) -> Store: ...
    @property
    def used(self) -> tuple[int, int]:
        """Bytes in memory and in temporary files."""

@final
class RequestBody:
    """A body being collected: in memory up to limits, then in a file."""

    def __new__(cls, store: Store) -> RequestBody: ...
