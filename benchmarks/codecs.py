"""What a codec costs by itself: a record opened, one value of it read, changed and written back. No store, no session.

    python -m session_kit.benchmarks.codecs

Prints a table in Markdown. Each figure is the best of many rounds, in which the codecs take turns.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import msgspec

from session_kit.codec import Codec, Encrypted, make_codec

SIZES = {"200 B": 200, "4 KB": 4096, "64 KB": 65536}
CODECS = ["json", "json+zlib", "json+zstd", "msgpack", "msgpack+zlib", "msgpack+zstd"]
KEY = bytes(range(32))
PLACE = "sess:" + "0" * 64
WORDS = ["apple", "pear", "plum", "cherry", "quince", "medlar", "fig", "grape", "lemon", "orange", "lime", "almond"]
ROUNDS = 60


def make_data(size: int) -> dict[str, Any]:
    """A cart whose JSON has so many bytes."""
    dice = random.Random(size)
    data: dict[str, Any] = {"user": 4711, "csrf": "Qm9vZ3d4c0d5b0hKZ1h2", "seen": 1764300000.25, "cart": []}
    while len(msgspec.json.encode(data)) < size - 80:
        name, price = " ".join(dice.choices(WORDS, k=3)), dice.randrange(10**4) / 100
        data["cart"].append({"id": dice.randrange(10**6), "name": name, "price": price})
    return {**data, "rest": "-" * (size - len(msgspec.json.encode(data)) - len(',"rest":""'))}


def actions(codec: Codec, data: dict[str, Any]) -> tuple[Callable[[], object], Callable[[], object], int]:
    """What opens a record and reads a value, what changes the value and writes it back, and how large the record is."""
    fields = {key: codec.dump(value, key) for key, value in data.items()}
    record = codec.pack(fields, PLACE)

    def read() -> None:
        codec.load(codec.unpack(record, PLACE)["user"], object)

    def write() -> None:
        codec.pack({**fields, "user": codec.dump(4712, "user")}, PLACE)

    return read, write, len(record)


def microseconds(action: Callable[[], object]) -> float:
    """How long it takes, of a few calls in a row."""
    calls = 50
    began = time.perf_counter_ns()
    for _ in range(calls):
        action()
    return (time.perf_counter_ns() - began) / calls / 1000


def main() -> None:
    """Measure all codecs at all sizes."""
    codecs = {name: make_codec(name) for name in CODECS}
    codecs |= {f"{name}, encrypted": Encrypted(KEY, codec) for name, codec in codecs.items() if "zlib" not in name}
    rows: dict[str, list[str]] = {name: [] for name in codecs}
    for size in SIZES.values():
        data = make_data(size)
        made = {name: actions(codec, data) for name, codec in codecs.items()}
        best = {name: (float("inf"), float("inf")) for name in made}
        for _ in range(ROUNDS):
            for name, (read, write, _size) in made.items():
                best[name] = min(best[name][0], microseconds(read)), min(best[name][1], microseconds(write))
        for name, (_read, _write, stored) in made.items():
            rows[name] += [f"{best[name][0]:.1f}", f"{best[name][1]:.1f}", f"{stored:,}"]
    heads = [f"{size}: {what}" for size in SIZES for what in ("open", "write", "bytes")]
    print(f"| codec | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
