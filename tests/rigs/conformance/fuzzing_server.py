"""The fuzzing server of Autobahn|Testsuite on loopback, on a free port. Python 2.7 runs it, started by `suite.Server`.

Its argument is JSON: "cases" and "only", patterns of which a case has to match one of each; "certificate" and "key",
files, both or none; "reports", a folder for the suite's own pages, or none. It prints lines of JSON: first the port and
the cases, then its verdict on each case, and ends when its input does.
"""

import fnmatch
import json
import sys
import threading

from autobahntestsuite.fuzzing import FuzzingServerFactory
from twisted.internet import reactor, ssl

LOOPBACK = "127.0.0.1"
VERDICT = ("id", "behavior", "behaviorClose", "remoteCloseCode", "duration", "result", "resultClose")


class Factory(FuzzingServerFactory):
    """The suite's own, which also tells each verdict at once."""

    def logCase(self, results):  # noqa: N802 - the suite's name for it
        """Take a verdict."""
        FuzzingServerFactory.logCase(self, results)
        verdict = {name: results[name] for name in VERDICT}
        verdict["received"] = repr(results["received"])[:300]
        tell(verdict)


def tell(facts):
    """Print one line for whoever started this."""
    OUT.write(json.dumps(facts) + "\n")
    OUT.flush()


def end_with_the_input():
    """Stop when nobody is there any more."""
    sys.stdin.read()
    reactor.callFromThread(reactor.stop)


def matching(ids, patterns):
    """Return those of the cases that match a pattern, or all of them without any."""
    return [case for case in ids if not patterns or any(fnmatch.fnmatch(case, p) for p in patterns)]


def listen(factory, certificate, key):
    """Listen on a free port and return it."""
    if certificate:
        context = ssl.DefaultOpenSSLContextFactory(key, certificate)
        return reactor.listenSSL(0, factory, context, interface=LOOPBACK).getHost().port
    return reactor.listenTCP(0, factory, interface=LOOPBACK).getHost().port


def main():
    """Serve until the input ends."""
    wanted = json.loads(sys.argv[1])
    scheme = "wss" if wanted["certificate"] else "ws"
    url = scheme + "://" + LOOPBACK + ":"
    factory = Factory(
        {"url": str(url + "1"), "cases": wanted["cases"], "outdir": wanted["reports"], "options": {}}
    )
    factory.specCases = matching(factory.specCases, wanted["only"])
    port = listen(factory, wanted["certificate"], wanted["key"])
    # The Host header of every request is compared with this.
    factory.setSessionParameters(url=str(url + str(port)))
    tell({"port": port, "cases": factory.specCases})
    watcher = threading.Thread(target=end_with_the_input)
    watcher.daemon = True
    watcher.start()
    reactor.run()
    if wanted["reports"]:
        factory.createReports()


if __name__ == "__main__":
    # The suite talks on the standard output: that goes to the log.
    OUT, sys.stdout = sys.stdout, sys.stderr
    main()
