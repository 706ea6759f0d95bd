"""`capsbench data`: the commands on data sets."""

from capsbench.cli.groups import About, LazyGroup, group


class _Commands(LazyGroup):
    """The commands of `capsbench data`."""

    sections = {  # noqa: RUF012 - a ClassVar of the base class
        "Commands": {
            "list": About("datasets", "List known data sets, where they are searched for and which files are missing."),
            "fetch": About("fetch", "Download published data sets and verify their SHA-256."),
            "make": About(
                "datasets", "Generate a synthetic data set into the user's cache folder, or a contact sheet of it."
            ),
            "verify": About("datasets", "Read data sets completely and report problems."),
        }
    }


app = group(
    _Commands,
    "List, download, verify and generate data sets.",
    "capsbench data list --data ~/datasets",
)


@app.callback()
def _data() -> None:
    pass
