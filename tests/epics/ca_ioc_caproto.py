"""A Channel Access IOC by caproto, which is written in Python alone."""

import asyncio
import os
import threading

import common

arguments = common.server_arguments(__doc__)
os.environ["EPICS_CA_SERVER_PORT"] = str(arguments.port)  # caproto's server reads this one
os.environ["EPICS_CAS_AUTO_BEACON_ADDR_LIST"] = "NO"
os.environ["EPICS_CAS_BEACON_ADDR_LIST"] = "127.255.255.255"  # so that nobody hears them

from caproto import ChannelDouble
from caproto.asyncio.server import Context


def exit_when_stdin_closes():
    common.wait_until_stdin_closes()
    os._exit(0)


async def main():
    pvs = {name: ChannelDouble(value=initial) for name, initial in arguments.pvs.items()}
    context = Context(pvs, interfaces=[arguments.interface])

    async def announce(_async_library):
        common.ready(context.port)

    await context.run(startup_hook=announce)


threading.Thread(target=exit_when_stdin_closes, daemon=True).start()
asyncio.run(main())
