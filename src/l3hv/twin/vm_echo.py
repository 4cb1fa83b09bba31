"""UDP echo (RFC 862) on all addresses; the source of a reply is the destination of its request.

It imports only modules that are built into Python.
"""

import _socket

IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50

echo = _socket.socket(_socket.AF_INET6, _socket.SOCK_DGRAM)
echo.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
echo.setsockopt(_socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
echo.bind(("::", 7))
while True:
    try:
        data, asked, _, sender = echo.recvmsg(65536, 256)
        # Copy only the address (16 bytes) of the packet information: routing chooses the interface.
        source = [(level, kind, value[:16] + bytes(4)) for level, kind, value in asked]
        echo.sendmsg([data], source, 0, sender)
    except OSError:
        continue
