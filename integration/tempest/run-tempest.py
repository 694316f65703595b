# run-tempest.py PACKAGE: runs the tests in a package of Tempest's and prints a
# line of JSON for each: its name, "ok", "skip" or "fail", and why.
import json
import sys
import traceback
import unittest


class Lines(unittest.TestResult):
    def say(self, test, outcome, why=""):
        print(json.dumps({"test": test.id(), "outcome": outcome, "why": str(why)[-4000:]}), flush=True)

    def addSuccess(self, test):
        self.say(test, "ok")

    def addSkip(self, test, reason):
        self.say(test, "skip", reason)

    def addError(self, test, err):
        self.say(test, "fail", "".join(traceback.format_exception(*err)))

    addFailure = addError

    def addExpectedFailure(self, test, err):
        self.say(test, "ok")

    def addUnexpectedSuccess(self, test):
        self.say(test, "fail", "it passed, which was not expected")


def flat(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flat(item)
        else:
            yield item


package = __import__(sys.argv[1], fromlist=["__path__"])
path = package.__path__[0]
top = path[: -len(sys.argv[1])]
suite = unittest.TestLoader().discover(path, top_level_dir=top)
for test in flat(suite):
    print(json.dumps({"test": test.id(), "outcome": "found", "why": ""}), flush=True)
suite.run(Lines())
