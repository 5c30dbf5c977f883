"""How two nodes of one database prove to each other that they know a secret, without sending it.

The node that is connected to sends a challenge, 32 random bytes; the other one answers with a
challenge of its own and with the proof that it knows the secret, and gets the proof of the node. A
proof is an HMAC-SHA256 over both challenges and the role, so that none can be used again, nor sent
back to where it came from.
"""

import asyncio
import hmac
import secrets
from hashlib import sha256

import msgspec
from msgspec import Struct

HANDSHAKE_SECONDS = 5.0
"""How long a handshake may take, with the connection."""

VERSION = 1
"""The version of the protocol between nodes."""


class _Challenge(Struct, frozen=True):
    version: int
    challenge: str


class _Answer(Struct, frozen=True):
    challenge: str
    proof: str


class _Proof(Struct, frozen=True):
    proof: str


_CHALLENGE = msgspec.json.Decoder(_Challenge)
_ANSWER = msgspec.json.Decoder(_Answer)
_PROOF = msgspec.json.Decoder(_Proof)


class NotProven(ValueError):
    """The other end does not know the secret, or speaks another version of the protocol."""


async def admit(secret: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Does the handshake for the node that is connected to; raises `NotProven`, or what reads."""
    challenge = secrets.token_hex(32)
    _write(writer, _Challenge(VERSION, challenge))
    answer = _ANSWER.decode(await reader.readline())
    _require(answer.proof, _proof(secret, b"follower", challenge, answer.challenge))
    _write(writer, _Proof(_proof(secret, b"node", challenge, answer.challenge)))


async def introduce(
    secret: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Does the handshake for the one that connects; raises as `admit` does."""
    first = _CHALLENGE.decode(await reader.readline())
    if first.version != VERSION:
        raise NotProven(f"the node speaks version {first.version}, not {VERSION}")
    challenge = secrets.token_hex(32)
    proof = _proof(secret, b"follower", first.challenge, challenge)
    _write(writer, _Answer(challenge, proof))
    answer = _PROOF.decode(await reader.readline())
    _require(answer.proof, _proof(secret, b"node", first.challenge, challenge))


def _write(writer: asyncio.StreamWriter, message: Struct) -> None:
    writer.write(msgspec.json.encode(message) + b"\n")


def _proof(secret: bytes, role: bytes, node: str, follower: str) -> str:
    text = b"treadle\0%b\0%b\0%b" % (role, node.encode(), follower.encode())
    return hmac.digest(secret, text, sha256).hex()


def _require(given: str, expected: str) -> None:
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise NotProven("the other end does not know the secret of the database")
