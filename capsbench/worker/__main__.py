"""`python -m capsbench.worker`: read a job, do it, end."""

import faulthandler
import gc
import os

from capsbench.worker.channel import open_channel


def main() -> None:
    """Do the one job that stands on stdin."""
    gc.disable()  # nothing of what is imported is garbage; looking for some takes a tenth of the start
    channel = open_channel()
    faulthandler.enable()
    # What a framework prints while it is imported must not reach the message pipe: import only now.
    from capsbench.worker.messages import Message, decode_job, encode  # noqa: PLC0415 - see above
    from capsbench.worker.stages import run  # noqa: PLC0415 - see above

    def send(message: Message) -> None:
        channel.write(encode(message))

    job = decode_job(channel.read_job())
    gc.enable()
    channel.end_with_parent()
    send(run(job, send))
    os._exit(0)  # everything is said; a framework's teardown may hang or crash


if __name__ == "__main__":
    main()
