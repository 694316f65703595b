"""Prints every notification of a topic, one JSON object a line, until killed.

usage: listen.py TRANSPORT_URL EXCHANGE TOPIC
"""
import json
import sys
import threading

import oslo_messaging
from oslo_config import cfg

url, exchange, topic = sys.argv[1:]


class Printer:
    def note(self, ctxt, publisher_id, event_type, payload, metadata, priority):
        line = {"context": {k: v for k, v in ctxt.items() if k != "client_timeout"}, "publisher": publisher_id,
                "type": event_type, "payload": payload, "id": metadata["message_id"],
                "timestamp": metadata["timestamp"], "priority": priority}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def info(self, *args):
        self.note(*args, "info")

    def error(self, *args):
        self.note(*args, "error")


conf = cfg.ConfigOpts()
conf([])
transport = oslo_messaging.get_notification_transport(conf, url=url)
target = oslo_messaging.Target(topic=topic, exchange=exchange)
server = oslo_messaging.get_notification_listener(transport, [target], [Printer()], executor="threading")
conf.set_override("executor_thread_pool_size", 1)  # or the order gets lost on the last metre
server.start()
print(json.dumps({"type": "listening"}), flush=True)
threading.Event().wait()
