"""Tables as text, and text as it was last approved. CAPSBENCH_REWRITE_GOLDEN=1 stores what is printed now."""

import io
import os
from pathlib import Path

from capsbench.report.console import console, print_table

GOLDEN = Path(__file__).parent / "golden"


def printed(width, show, encoding="utf-8"):
    """What `show` prints on a pipe of this width."""
    data = io.BytesIO()
    with io.TextIOWrapper(data, encoding=encoding, errors="replace") as file:
        show(console(file, width))
        file.flush()
        return data.getvalue().decode(encoding)


def printed_tables(tables, width=100):
    """What the tables look like on a pipe of this width."""

    def show(screen):
        for table in tables:
            print_table(table, screen)

    return printed(width, show)


def approved(name, text):
    """What is stored under a name; this very text where it is to be stored anew."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("CAPSBENCH_REWRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")
