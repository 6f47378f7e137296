"""Reads process variables by PVAccess with pvapy (EPICS Base's pvAccessCPP)."""

import time

import common

arguments = common.client_arguments(__doc__)
common.search_only_at("PVA", arguments)

import pvaccess

deadline = time.monotonic() + arguments.timeout
channels = [(name, pvaccess.Channel(name)) for name in arguments.names]
for name, channel in channels:
    channel.setTimeout(max(0.1, deadline - time.monotonic()))
    try:
        answer = channel.get("field(value)")
    except Exception as error:
        common.fail(f"{name}: {type(error).__name__} {error}")
    common.value(name, answer["value"])
