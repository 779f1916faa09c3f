"""What HEALTHCHECK runs: exit status 0 if this container's server is ready, 1 if not.

The argument is the image's default port; SSASR_PORT and SSASR_TLS_CERTIFICATE count as they do for
the server. The certificate is not verified: it names the public host, and this asks the loopback,
that of IPv4 and, where nobody answers there, of IPv6.
"""

import os
import ssl
import sys
import urllib.request

DEADLINE = 1.4


def main() -> int:
    port = os.environ.get("SSASR_PORT", sys.argv[1])
    scheme = "https" if "SSASR_TLS_CERTIFICATE" in os.environ else "http"
    context = ssl._create_unverified_context() if scheme == "https" else None
    for host in ("127.0.0.1", "[::1]"):
        address = f"{scheme}://{host}:{port}/ready"
        try:
            with urllib.request.urlopen(address, timeout=DEADLINE, context=context):
                return 0
        except OSError as error:
            sys.stderr.write(f"{address}: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
