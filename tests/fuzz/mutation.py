"""Inputs made from sound ones: bits, bytes and numbers changed, words put in, two inputs joined, ends cut off."""

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(chance, seeds, words, most_bytes):
    """One input of at most so many bytes, by a `random.Random`."""
    data = bytearray(chance.choice(seeds)[:most_bytes])
    for _ in range(min(8, 1 + int(chance.expovariate(0.7)))):
        chance.choice(_CHANGES)(chance, data, seeds, words)
    return bytes(data[:most_bytes])


def _flip(chance, data, _seeds, _words):
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _byte(chance, data, _seeds, _words):
    if data:
        data[chance.randrange(len(data))] = chance.randrange(256)


def _number(chance, data, _seeds, _words):
    size = chance.choice((1, 2, 4))
    at = chance.randrange(len(data) + 1)
    value = chance.choice(_NUMBERS) & ((1 << 8 * size) - 1)
    data[at : at + size] = value.to_bytes(size, chance.choice(("little", "big")))


def _drop(chance, data, _seeds, _words):
    at = chance.randrange(len(data) + 1)
    del data[at : at + 1 + int(chance.expovariate(0.05))]


def _repeat(chance, data, _seeds, _words):
    at = chance.randrange(len(data) + 1)
    data[at:at] = data[at : at + 1 + int(chance.expovariate(0.1))] * chance.choice((1, 1, 1, 2, 30))


def _word(chance, data, _seeds, words):
    if words:
        at = chance.randrange(len(data) + 1)
        data[at:at] = chance.choice(words)


def _digits(chance, data, _seeds, _words):
    """A number somewhere in the text becomes another."""
    spots = [at for at, byte in enumerate(data[:4096]) if 0x30 <= byte <= 0x39]
    if spots:
        at = chance.choice(spots)
        data[at : at + 1] = chance.choice((b"0", b"-1", b"99999999999999999999", b"1e308", b"0.5", b"true", b"3"))


def _join(chance, data, seeds, _words):
    other = chance.choice(seeds)
    at, begin = chance.randrange(len(data) + 1), chance.randrange(len(other) + 1)
    data[at:] = other[begin:]


def _cut(chance, data, _seeds, _words):
    del data[chance.randrange(len(data) + 1) :]


_CHANGES = (_flip, _flip, _byte, _number, _drop, _repeat, _word, _word, _digits, _digits, _join, _cut)
