"""The child process: one job comes in on stdin, messages go out on a pipe, and whatever goes wrong stays inside."""
