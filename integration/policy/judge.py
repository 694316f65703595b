"""Answers questions about policies as oslo.policy and Glance do.

Reads one JSON object, {"files": [text], "users": [...], "targets": [...],
"asks": [[file, rule, user, target]]}, where file -1 is Glance's own rules, and
writes {"answers": [true, false or null], "defaults": {rule: text}}. null is an
exception.
"""

import datetime
import json
import logging
import sys
import warnings

from oslo_config import cfg
from oslo_context import context
from oslo_policy import policy

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

from glance import domain  # noqa: E402
from glance.api import policy as glance_policy  # noqa: E402


def user(u):
    values = dict(u)
    return context.RequestContext(overwrite=False, **values)


def target(t):
    if t["kind"] == "fields":
        return t["fields"]
    now = datetime.datetime(2026, 1, 1)
    image = domain.Image(
        image_id=t["id"], status=t["status"], created_at=now, updated_at=now,
        extra_properties=t["properties"], **t["fields"])
    return glance_policy.ImageTarget(image)


def enforcer(text):
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    e = policy.Enforcer(conf, use_conf=False)
    rules = policy.Rules.load(text, "default")
    rules.setdefault("default", policy._parser.parse_rule(""))
    e.set_rules(rules)
    return e


def glance():
    cfg.CONF([], project="glance", default_config_files=[], default_config_dirs=[])
    e = glance_policy.Enforcer(suppress_deprecation_warnings=True)
    cfg.CONF.set_override("policy_dirs", [], group="oslo_policy")
    cfg.CONF.set_override("enforce_new_defaults", True, group="oslo_policy")
    cfg.CONF.set_override("enforce_scope", True, group="oslo_policy")
    return e


def main():
    work = json.load(sys.stdin)
    real = glance()
    engines = [enforcer(text) for text in work["files"]]
    users = [user(u) for u in work["users"]]
    targets = [target(t) for t in work["targets"]]
    answers = []
    for file, rule, u, t in work["asks"]:
        e = real if file < 0 else engines[file]
        try:
            answers.append(bool(policy.Enforcer.enforce(e, rule, targets[t], users[u])))
        except Exception as err:
            print(rule, repr(err), file=sys.stderr)
            answers.append(None)
    defaults = {r.name: r.check_str for r in real.registered_rules.values()}
    json.dump({"answers": answers, "defaults": defaults}, sys.stdout)


main()
