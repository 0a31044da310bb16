"""RPC over HTTP with impacket: an NSPI bind, and an unbind, through whatever answers under a name.

usage: nspi_bind.py HOST PORT USER PASSWORD MAILBOX basic|auto|ntlm [DOMAIN]
"""

import json
import socket
import sys

from impacket.dcerpc.v5 import nspi, transport
from impacket.http import AUTH_AUTO, AUTH_BASIC, AUTH_NTLM

host, port, user, password, mailbox, scheme = sys.argv[1:7]
domain = sys.argv[7] if len(sys.argv) > 7 else ""
schemes = {"basic": AUTH_BASIC, "auto": AUTH_AUTO, "ntlm": AUTH_NTLM}

# The name stands in no DNS.
resolve = socket.getaddrinfo


def at_home(name, *more, **others):
    return resolve("127.0.0.1" if name == host else name, *more, **others)


socket.getaddrinfo = at_home
socket.setdefaulttimeout(20)

client = transport.DCERPCTransportFactory("ncacn_http:%s[6004]" % mailbox)
client.set_rpc_proxy_url("https://%s:%s/rpc/rpcproxy.dll" % (host, port))
client.set_credentials(user, password, domain)
client.set_auth_type(schemes[scheme])

dce = client.get_dce_rpc()
dce.connect()
dce.bind(nspi.MSRPC_UUID_NSPI)
bound = nspi.hNspiBind(dce)
unbound = nspi.hNspiUnbind(dce, bound["contextHandle"])
guid = bytes(bound["pServerGuid"])
print(
    json.dumps(
        {
            "scheme": client.get_auth_type(),
            "server": guid.decode("ascii", "replace"),
            "bound": bound["ErrorCode"],
            "unbound": unbound["ErrorCode"],
        }
    )
)
dce.disconnect()
