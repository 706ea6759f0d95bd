"""The hash of what something is: of plain data or dataclasses."""

import hashlib
import json
from typing import Final

from capsbench.network.text import plain

_ENCODER: Final = json.JSONEncoder(sort_keys=True)


def content_hash(value: object) -> str:
    """Hash of plain data or dataclasses, all fields written out, 16 hexadecimal digits."""
    return hashlib.sha256(as_json(plain(value, defaults=True))).hexdigest()[:16]


def as_json(value: object) -> bytes:
    """Plain data as it is hashed."""
    return _ENCODER.encode(value).encode()
