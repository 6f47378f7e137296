"""Exits with 0 once the UDP server on loopback at the given port echoes; 1 if not within 30 s."""

import socket
import sys

QUESTION = b"who is there"

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(0.3)
    for _ in range(100):
        client.sendto(QUESTION, ("127.0.0.1", int(sys.argv[1])))
        try:
            sys.exit(client.recv(100) != QUESTION)
        except TimeoutError:
            pass
sys.exit("no answer")
