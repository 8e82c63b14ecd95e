"""What a codec costs by itself: a record opened, one value of it read, changed and written back. No store, no session.

    python -m session_kit.benchmarks.maintainers.codecs

Prints a table in Markdown. Each figure is the best of many rounds, in which the codecs take turns.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from session_kit.benchmarks.maintainers.results import Case, compare, markdown, report
from session_kit.benchmarks.measure import Noise, microseconds
from session_kit.codec import Codec, Encrypted, make_codec

SIZES = {"200 B": 200, "4 KB": 4096, "64 KB": 65536}
TIMES = 50  # in a round
CODECS = ["json", "json+zlib", "json+zstd", "msgpack", "msgpack+zlib", "msgpack+zstd"]
KEY = bytes(range(32))
PLACE = "sess:" + "0" * 64
WORDS = ["apple", "pear", "plum", "cherry", "quince", "medlar", "fig", "grape", "lemon", "orange", "lime", "almond"]


def make_data(size: int) -> dict[str, Any]:
    """A cart whose JSON has so many bytes."""
    dice = random.Random(size)
    data: dict[str, Any] = {"user": 4711, "csrf": "Qm9vZ3d4c0d5b0hKZ1h2", "seen": 1764300000.25, "cart": []}
    while len(msgspec.json.encode(data)) < size - 80:
        name, price = " ".join(dice.choices(WORDS, k=3)), dice.randrange(10**4) / 100
        data["cart"].append({"id": dice.randrange(10**6), "name": name, "price": price})
    return {**data, "rest": "-" * (size - len(msgspec.json.encode(data)) - len(',"rest":""'))}


def cases(codec: Codec, data: dict[str, Any]) -> tuple[Case, Case, int]:
    """What opens a record and reads a value, what changes the value and writes it back, and how large the record is."""
    fields = {key: codec.dump(value, key) for key, value in data.items()}
    record = codec.pack(fields, PLACE)

    def read() -> None:
        for _ in range(TIMES):
            codec.load(codec.unpack(record, PLACE)["user"], object)

    def write() -> None:
        for _ in range(TIMES):
            codec.pack({**fields, "user": codec.dump(4712, "user")}, PLACE)

    return read, write, len(record)


def main() -> None:
    """Measure all codecs at all sizes."""
    codecs = {name: make_codec(name) for name in CODECS}
    codecs |= {f"{name}, encrypted": Encrypted(KEY, codec) for name, codec in codecs.items() if "zlib" not in name}
    rows: dict[str, list[str]] = {name: [name] for name in codecs}
    noise = Noise()
    for size in SIZES.values():
        made = {name: cases(codec, make_data(size)) for name, codec in codecs.items()}
        reads = compare({name: read for name, (read, _, _) in made.items()}, TIMES, 60, noise)
        writes = compare({name: write for name, (_, write, _) in made.items()}, TIMES, 60, noise)
        for name, (_, _, stored) in made.items():
            rows[name] += [microseconds(reads[name]), microseconds(writes[name]), f"{stored:,}"]
    heads = [f"{size}: {what}" for size in SIZES for what in ("open", "write", "bytes")]
    print(report(markdown(["codec", *heads], rows.values(), 1), ["msgspec", "cryptography"], noise))


if __name__ == "__main__":
    main()
