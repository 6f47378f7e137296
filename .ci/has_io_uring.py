"""Exits with 0 if the kernel grants a ring to a bare io_uring_setup, else says why not: what the
tests must not take a library's word for."""

import ctypes
import os
import sys

IO_URING_SETUP = 425  # the same on every architecture
PARAMETERS_LEN = 120

libc = ctypes.CDLL(None, use_errno=True)
fd = libc.syscall(IO_URING_SETUP, 2, ctypes.create_string_buffer(PARAMETERS_LEN))
if fd < 0:
    sys.exit(f"no io_uring here: {os.strerror(ctypes.get_errno())}")
