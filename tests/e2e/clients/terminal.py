"""A person at a terminal: `terminal.py COMMAND [TEXT KEYS]...` runs COMMAND on a terminal of 140 columns; when TEXT is seen, that is said and KEYS are pressed.
Fails unless the command then ends with status 0 and leaves the terminal as it was."""
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

command, steps = sys.argv[1], sys.argv[2:]
child, terminal = pty.fork()
if child == 0:
    os.environ["TERM"] = "xterm-256color"
    os.execvp("bash", ["bash", "-c", "read -r _; exec " + command])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
was = termios.tcgetattr(terminal)
os.write(terminal, b"\n")
seen, since, end = b"", 0, time.monotonic() + 60


def more():
    """Whether the command still writes."""
    global seen
    if time.monotonic() > end:
        sys.exit(f"nothing of {steps[:1]} after a minute: {seen[since:]!r}")
    if select.select([terminal], [], [], 1)[0]:
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # nobody has the other end open any more
            return False
    return True


while steps:
    text, keys = steps[0].encode(), steps[1].encode().decode("unicode_escape").encode()
    while text not in seen[since:]:
        if not more():
            sys.exit(f"it ended before {text!r}: {seen!r}")
    print(f"seen {steps[0]}", flush=True)
    since = len(seen)
    os.write(terminal, keys)
    steps = steps[2:]
status = None
while status is None:
    more()
    pid, ended = os.waitpid(child, os.WNOHANG)
    status = os.waitstatus_to_exitcode(ended) if pid else None
if status != 0:
    sys.exit(f"it ended with {status}: {seen[since:]!r}")
if seen.count(b"\x1b[?1049h") != seen.count(b"\x1b[?1049l"):
    sys.exit("the terminal shows another screen than before")
if termios.tcgetattr(terminal) != was:
    sys.exit("the terminal is not as it was")
print(f"{len(seen)} bytes shown")
