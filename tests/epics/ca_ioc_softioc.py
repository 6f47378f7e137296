"""A Channel Access IOC by softioc, which is EPICS Base's own server (rsrv)."""

import ctypes
import os

import common

arguments = common.server_arguments(__doc__)
os.environ["EPICS_CAS_SERVER_PORT"] = str(arguments.port)  # both TCP and UDP
os.environ["EPICS_CAS_INTF_ADDR_LIST"] = arguments.interface
os.environ["EPICS_CAS_AUTO_BEACON_ADDR_LIST"] = "NO"
os.environ["EPICS_CAS_BEACON_ADDR_LIST"] = "127.255.255.255"  # so that nobody hears them

from softioc import asyncio_dispatcher, builder, softioc

for name, initial in arguments.pvs.items():
    builder.aOut(name, initial_value=initial)
builder.LoadDatabase()
softioc.iocInit(asyncio_dispatcher.AsyncioDispatcher(), enable_pva=False)

# rsrv takes another port where the one asked for is in use, and leaves word of it here.
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
common.ready(getenv(b"RSRV_SERVER_PORT").decode())
common.wait_until_stdin_closes()
