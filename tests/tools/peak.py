#!/usr/bin/env python3
"""Runs a program and appends its peak resident memory to a file, in KiB, one line a run.

  peak.py FILE PROGRAM [ARGUMENT…]

Standard input, output and the exit status are the program's own. The figure is ru_maxrss of wait4, which
counts what this script itself had at the fork (about 10 MiB) as a floor.
"""
import os, signal, sys

pid = os.fork()
if pid == 0:
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    finally:
        os._exit(127)
for number in (0, 1):
    os.close(number)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda caught, frame: os.kill(pid, caught))
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "a") as f:
    f.write(f"{usage.ru_maxrss}\n")
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != signal.SIGKILL else None
    os.kill(os.getpid(), os.WTERMSIG(status))
sys.exit(os.waitstatus_to_exitcode(status))
