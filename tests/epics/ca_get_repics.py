"""Reads process variables by Channel Access with repics (epics-rs)."""

import common

arguments = common.client_arguments(__doc__)
common.search_only_at("CA", arguments)

from repics import ca

try:
    answers = ca.caget(arguments.names, timeout=arguments.timeout)
except ca.CaError as error:
    common.fail(f"{arguments.names}: {type(error).__name__} {error}")
for name, answer in zip(arguments.names, answers):
    common.value(name, answer)
