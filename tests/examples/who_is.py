"""Asks who is there by BACnet, from an address with its prefix; prints the devices that answer."""

import asyncio
import sys

from bacpypes3.app import Application
from bacpypes3.local.device import DeviceObject
from bacpypes3.local.networkport import NetworkPortObject


async def main(address, *limits):
    identifier = ("device", 599)
    device = DeviceObject(objectName="asker", objectIdentifier=identifier, vendorIdentifier=999)
    port = NetworkPortObject(address, objectName="port", objectIdentifier=("network-port", 1))
    app = Application.from_object_list([device, port])
    try:
        for found in await app.who_is(*map(int, limits), timeout=2):
            print(found.iAmDeviceIdentifier[1], found.pduSource, flush=True)
    finally:
        app.close()


asyncio.run(main(*sys.argv[1:]))
