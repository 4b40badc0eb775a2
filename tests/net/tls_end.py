"""Ends TLS and passes all bytes on, as a proxy for streams does: tls_end.py CERTIFICATE HOST:PORT. Prints its own port."""

import socket
import ssl
import sys
import threading


def pass_on(source, to):
    try:
        while data := source.recv(65536):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass


certificate, at = sys.argv[1:]
host, port = at.rsplit(":", 1)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
plain = listening.accept()[0]
inside = context.wrap_socket(plain, server_side=True)
behind = socket.create_connection((host, int(port)))
back = threading.Thread(target=pass_on, args=(behind, inside))
back.start()
pass_on(inside, behind)
back.join()
