"""Large bodies, and what they were without sending them back."""

import hashlib

BLOCK = bytes(range(256)) * 256


def digest(stream):
    """Length and SHA-256 of what a stream still holds."""
    total, sha = 0, hashlib.sha256()
    while block := stream.read(1 << 20):
        total += len(block)
        sha.update(block)
    return {"size": total, "sha256": sha.hexdigest()}


def described(body):
    """What `digest` says of a stream with this body."""
    return {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def in_parts(body, size=65521):
    """`body` in parts of an odd size, as clients send a generator."""
    for start in range(0, len(body), size):
        yield body[start : start + size]
